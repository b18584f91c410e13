"""Small ground truths and detections, as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovsam_cli.masks import encode_mask, mask_areas, mask_boxes
from ovsam_cli.structures import BoolArray

HW = (60, 80)
Entry = dict[str, object]


def square(left: int, top: int, side: int, hw: tuple[int, int] = HW) -> BoolArray:
    mask = np.zeros(hw, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def entry(number: int, image_id: int, category_id: int, mask: BoolArray, **more: object) -> Entry:
    """An annotation with mask, box and area; more keys, such as a score, behind them."""
    segmentation = encode_mask(mask)
    left, top, right, bottom = mask_boxes([segmentation])[0].tolist()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox": [left, top, right - left, bottom - top],
        "area": float(mask_areas([segmentation])[0]),
        "iscrowd": 0,
        **more,
    }


def write_coco(
    path: Path,
    annotations: Sequence[Entry],
    *,
    num_images: int = 2,
    names: Sequence[str] = ("cat", "dog"),
    image: Entry | None = None,
    category: Entry | None = None,
) -> Path:
    """A COCO file of images 1.. and categories 1.., with more keys for each if wanted."""
    height, width = HW
    images = [
        {"id": n, "file_name": f"{n}.jpg", "height": height, "width": width, **(image or {})}
        for n in range(1, num_images + 1)
    ]
    categories = [{"id": n, "name": name, **(category or {})} for n, name in enumerate(names, 1)]
    content = {"images": images, "annotations": [*annotations], "categories": categories}
    path.write_text(json.dumps(content))
    return path


def write_results(path: Path, results: Sequence[Entry]) -> Path:
    path.write_text(json.dumps([*results]))
    return path
