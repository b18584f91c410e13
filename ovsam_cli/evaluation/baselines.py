"""What costs nothing: the box filled, the ellipse in it, the commonest name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ovsam_cli.evaluation.datasets import InstanceDataset
from ovsam_cli.masks import encode_mask, mask_boxes
from ovsam_cli.structures import BoolArray, Rle


def draw_baseline(segmentation: Rle, shape: Literal["box", "ellipse"]) -> Rle:
    """The tight box of a mask, filled, or the ellipse inscribed in it; original frame."""
    left, top, right, bottom = mask_boxes([segmentation])[0].tolist()
    height, width = segmentation["size"]
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    mask: BoolArray = (x > left) & (x < right) & (y > top) & (y < bottom)
    if shape == "ellipse":
        half_x, half_y = max(right - left, 1) / 2, max(bottom - top, 1) / 2
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        mask = ((x - middle_x) / half_x) ** 2 + ((y - middle_y) / half_y) ** 2 <= 1
    return encode_mask(mask)


def compute_majority_share(datasets: Sequence[InstanceDataset]) -> float:
    """Share of instances that have the commonest category name: top-1 of always saying it."""
    counts = Counter(
        dataset.category_names[instance.category_id]
        for dataset in datasets
        for image in dataset.images
        for instance in image.instances
    )
    total = counts.total()
    return max(counts.values()) / total if total else float("nan")
