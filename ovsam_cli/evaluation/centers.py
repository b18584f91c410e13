"""The centre of a mask as the reference's point prompts have it (spec section 8)."""

from __future__ import annotations

import math

import numpy as np

from ovsam_cli.structures import BoolArray, FloatArray

_SMOOTHNESS = 0.35  # h of the approximate distance transform
_EDGE = math.exp(-1 / _SMOOTHNESS)
_CORNER = math.exp(-math.sqrt(2) / _SMOOTHNESS)


def compute_center_point(mask: BoolArray) -> tuple[int, int]:
    """(x, y) of the pixel deepest inside an (H, W) mask, first in row order; (0, 0) if empty."""
    if not mask.any():
        return 0, 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    distances = compute_depths(np.pad(part, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distances.argmax()), distances.shape)
    return left + int(x), top + int(y)


def compute_depths(mask: BoolArray) -> FloatArray:
    """Approximate distance of each pixel of an (H, W) mask to the background.

    An iterated 3 x 3 convolution with exp(-distance / h): each round reaches one ring further
    and adds floor(1.5 * round) to the ring's own -h * log. Not Euclidean, on purpose: another
    transform would pick other pixels.
    """
    depths = np.zeros(mask.shape, np.float32)
    reached = (~mask).astype(np.float32)
    for number in range(max(mask.shape)):
        level = _convolve(reached)
        ring = (level > 0) & (level < 1) & (reached == 0)
        if not ring.any():
            break
        depths[ring] += math.floor(1.5 * number) - _SMOOTHNESS * np.log(level[ring])
        reached[ring] = 1.0
    return depths


def _convolve(values: FloatArray) -> FloatArray:
    """3 x 3 convolution of (H, W), border values repeated; the kernel's center weighs 1."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + padded[2:]  # (H, W + 2): above and below
    edges = rows[:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    corners = rows[:, :-2] + rows[:, 2:]
    result: FloatArray = (values + _EDGE * edges + _CORNER * corners).astype(np.float32)
    return result
