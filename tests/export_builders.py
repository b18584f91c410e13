"""A small data set on disk with the masks that formats find hard, for tests of exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from result_builders import encode, failed_result, make_detections

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.structures import ImageRecord, ImageResult

NAMES = ("cat", 'Jäger "Zaun": <1>', "zebra", "unused")
CATEGORIES = tuple(CocoCategory(id, name) for id, name in enumerate(NAMES, start=1))
HW = (48, 64)


def draw_disc(y: float, x: float, radius: float) -> np.ndarray:
    """(H, W) bool."""
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def draw_box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """(H, W) bool."""
    mask = np.zeros(HW, bool)
    mask[top:bottom, left:right] = True
    return mask


RING = draw_disc(22, 40, 14) & ~draw_disc(22, 42, 5)
PARTS = draw_disc(10, 10, 7) | draw_box(30, 20, 44, 29) | draw_box(2, 50, 5, 63)
DISC = draw_disc(24.5, 20.2, 11.7)
PIXEL, FULL = draw_box(47, 63, 48, 64), draw_box(0, 0, *HW)
CORNERS = draw_box(5, 5, 10, 10) | draw_box(10, 10, 15, 15)  # parts that touch at a corner


def make_result(file_name: str, image_id: int, *masks: np.ndarray, folder: Path) -> ImageResult:
    """An image with these objects, of categories 1, 2, 3, 1, ..."""
    record = ImageRecord(folder / file_name, file_name, image_id)
    found = replace(
        make_detections(len(masks), hw=HW, num_categories=3, seed=image_id),
        segmentations=tuple(encode(mask) for mask in masks),
        areas=np.array([mask.sum() for mask in masks], np.int64),
        boxes_xyxy=np.array([tight_box(mask) for mask in masks], np.float32).reshape(-1, 4),
        category_ids=np.arange(len(masks), dtype=np.int64) % 3 + 1,
    )
    return ImageResult(record, "ok" if masks else "empty", HW, detections=found)


def tight_box(mask: np.ndarray) -> list[int]:
    """x0, y0, x1, y1, exclusive right and bottom."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


MASKS = {
    "a.png": (DISC, draw_disc(30, 50, 9)),
    "more/b.jpg": (RING, PARTS),
    "more/c d é.png": (),
    "more/deep/d.v2.jpg": (FULL, PIXEL, CORNERS),
}


def write_images(folder: Path) -> list[ImageResult]:
    """Random pictures of `MASKS`, with their results and a failed one behind them."""
    generator = np.random.default_rng(7)
    results = []
    for image_id, (name, masks) in enumerate(MASKS.items(), start=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (*HW, 3), dtype=np.uint8)).save(path)
        results.append(make_result(name, image_id, *masks, folder=folder))
    return [*results, failed_result(9)]


def compute_iou(left: np.ndarray, right: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((left & right).sum() / (left | right).sum())
