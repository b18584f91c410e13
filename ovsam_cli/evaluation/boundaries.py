"""Boundary IoU: how well outlines agree, however large the object; no torch."""

from __future__ import annotations

import math

import numpy as np

from ovsam_cli.masks import decode_mask_columns, mask_boxes
from ovsam_cli.structures import BoolArray, Rle

DILATION_RATIO = 0.02  # of the image's diagonal


def compute_boundary_iou(found: Rle, truth: Rle, *, ratio: float = DILATION_RATIO) -> float:
    """IoU of the pixels of two masks that lie within a distance of their own outlines.

    Cheng et al., "Boundary IoU" (2021): a mask less the mask eroded by d = round(ratio * diagonal)
    steps of a 3 x 3 square, at least one; what lies beyond the image counts as background. 1 for
    two empty masks, 0 for one.

    Args:
        found, truth: of the same image, original frame.
        ratio: of d to the image's diagonal.
    """
    height, width = truth["size"]
    distance = max(1, round(ratio * math.hypot(height, width)))
    boxes = mask_boxes([found, truth])
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    if len(boxes) < 2:
        return float(len(boxes) == 0)
    left, top = boxes[:, :2].min(axis=0).astype(int).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).astype(int).tolist()
    edges = [
        find_boundary(decode_mask_columns(one, left, right)[top:bottom], distance)
        for one in (found, truth)
    ]
    shared = int((edges[0] & edges[1]).sum())
    return shared / int((edges[0] | edges[1]).sum())


def find_boundary(mask: BoolArray, distance: int) -> BoolArray:
    """(H, W) pixels of a mask nearer than `distance` to the background, by the larger axis.

    A square's erosion is one of rows and one of columns, each a running count.
    """
    kept = np.pad(mask, distance)
    for axis in (0, 1):
        kept = _erode(kept, distance, axis)
    inner = kept[distance:-distance, distance:-distance]
    boundary: BoolArray = mask & ~inner
    return boundary


def _erode(mask: BoolArray, distance: int, axis: int) -> BoolArray:
    """True where all pixels up to `distance` away along an axis are; the border is background."""
    sums = np.cumsum(np.moveaxis(mask, axis, 0), axis=0, dtype=np.int32)
    window = 2 * distance + 1
    padded = np.concatenate([np.zeros_like(sums[:1]), sums])
    inside = np.zeros(sums.shape, np.bool_)
    inside[distance:-distance] = padded[window:] - padded[:-window] == window
    return np.moveaxis(inside, 0, axis)
