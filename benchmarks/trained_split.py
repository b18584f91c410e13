"""A vocabulary whose base names are those that a model saw in training, for `--split`.

    python benchmarks/trained_split.py tiny demo > split.json
    ovsam eval prompted scenes --model tiny --vocab demo --protocol paper \\
        --split split.json --out eval-seen

"Seen" is what the weights' own file says, as `ovsam label` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from ovsam_cli.errors import OvsamError
from ovsam_cli.model.checkpoint import load_model
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary, resolve_trained_names


def split_vocabulary(vocabulary: Vocabulary, trained_names: tuple[str, ...]) -> str:
    """The names as JSON, each base or novel."""
    rows = [
        {"name": one.name, "synonyms": [*one.synonyms], "base": int(kind) == 1}
        for one, kind in zip(vocabulary.categories, vocabulary.kind_for(trained_names), strict=True)
    ]
    return json.dumps(rows, indent=1) + "\n"


def main() -> None:
    """Read, split, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="bundled or known name, file, or folder")
    parser.add_argument("vocabulary", help="bundled name or file")
    arguments = parser.parse_args()
    try:
        config = load_model(arguments.model, device=torch.device("cpu")).config
        vocabulary = read_vocabulary(arguments.vocabulary)
        sys.stdout.write(split_vocabulary(vocabulary, resolve_trained_names(config.trained_on)))
    except OvsamError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
