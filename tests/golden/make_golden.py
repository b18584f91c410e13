"""Cut the golden files of this folder out of a parity pack.

python tests/golden/make_golden.py PACK_FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# Whole masks and embeddings are too big for a repository: every n-th row and column or channel.
MASK_STEP = 2
EMBEDDING_STEP = 8
CASE_FIELDS = (
    "image",
    "points_input_xy",
    "boxes_input_xyxy",
    "gt_boxes_original",
    "labels_scaled",
    "labels_unscaled_official_eval",
    "labels_head_only",
)


def main(pack: Path) -> None:
    """Write parity.npz, parity.json, official_keys.json and the images."""
    arrays = dict(np.load(pack / "reference.npz"))
    kept = {key: thin(key, array) for key, array in arrays.items()}
    reference = json.loads((pack / "reference.json").read_text())
    for name, case in reference["cases"].items():
        for number, rle in enumerate(case["masks_rle"]):
            kept[f"{name}/mask_{number}"] = np.packbits(decode(rle))
    np.savez_compressed(HERE / "parity.npz", **kept)
    cases = {
        name: {field: case[field] for field in CASE_FIELDS}
        for name, case in reference["cases"].items()
    }
    content = {"images": reference["images"], "settings": reference["settings"], "cases": cases}
    content["extras"] = reference["extras"]
    (HERE / "parity.json").write_text(json.dumps(content, indent=1) + "\n")
    write_keys(json.loads((pack / "manifest.json").read_text())["files"])
    for name in ("imgA", "imgB"):
        shutil.copyfile(pack / f"{name}.png", HERE / f"{name}.png")


def thin(key: str, array: np.ndarray) -> np.ndarray:
    """What is kept of one recorded array."""
    if key.endswith("/low_res_masks"):
        return array[:, ::MASK_STEP, ::MASK_STEP]
    return array[::EMBEDDING_STEP] if key.endswith("/image_embedding") else array


def decode(rle: dict) -> np.ndarray:
    """RLE -> (H, W) bool."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


def write_keys(files: dict) -> None:
    """Key lists of the official files, canonical keys given once."""
    shapes: dict[str, list] = {}
    layout: dict[str, dict] = {}
    for name, spec in files.items():
        if spec["kind"] == "class_embedding":
            continue
        keys = {}
        for key, (canonical, shape, dtype) in spec["keys"].items():
            shapes[canonical] = [*shape, dtype] if dtype != "float32" else shape
            keys[key] = canonical
        layout[name] = {"wrapped": spec["kind"] == "mmengine", "keys": keys}
    rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    parts = []
    order = list(shapes)
    for name, spec in layout.items():
        pairs = [key if key == c else [key, order.index(c)] for key, c in spec["keys"].items()]
        compact = json.dumps({"wrapped": spec["wrapped"], "keys": pairs}, separators=(",", ":"))
        parts.append(f"{json.dumps(name)}: {compact}")
    body = ",\n".join(parts)
    (HERE / "official_keys.json").write_text(
        f'{{"canonical": {{\n{rows}\n}},\n"files": {{\n{body}\n}}}}\n'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
