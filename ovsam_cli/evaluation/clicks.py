"""Points that stand for a mask: its centre by either rule, or random ones; no torch."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.evaluation.centers import compute_center_point
from ovsam_cli.structures import BoolArray, FloatArray, ImageGeometry, IntArray

ClickRule = Literal["exact", "reference"]
CHECK_EVERY = 8  # offsets between two looks at whether farther ones can matter


def find_deepest_pixel(mask: BoolArray) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the background, by Euclid, first in row order.

    What lies beyond the image counts as background. (0, 0) for an empty (H, W) mask. The squared
    distance along columns first, then over rows' offsets until none can be nearer (Felzenszwalb
    and Huttenlocher, "Distance Transforms of Sampled Functions", 2012, on why the two separate).
    """
    if not mask.any():
        return 0, 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    y, x = np.unravel_index(int(compute_squared_depths(part).argmax()), part.shape)
    return left + int(x) - 1, top + int(y) - 1


def compute_squared_depths(mask: BoolArray) -> NDArray[np.int32]:
    """(H, W) int32 squared distance of each pixel to the nearest background pixel.

    Args:
        mask: (H, W) whose border is background.
    """
    vertical = np.asarray(_column_depths(mask), np.int32) ** 2
    nearest = vertical.copy()
    for offset in range(1, mask.shape[1]):
        step = np.int32(offset * offset)
        if offset % CHECK_EVERY == 0 and step >= nearest.max():
            break
        np.minimum(nearest[:, offset:], vertical[:, :-offset] + step, out=nearest[:, offset:])
        np.minimum(nearest[:, :-offset], vertical[:, offset:] + step, out=nearest[:, :-offset])
    return nearest


def _column_depths(mask: BoolArray) -> IntArray:
    """Rows to the nearest background of the same column, above or below."""
    height = len(mask)
    numbers = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(mask, -1, numbers), axis=0)
    below = np.minimum.accumulate(np.where(mask, 2 * height, numbers)[::-1], axis=0)[::-1]
    depths: IntArray = np.minimum(numbers - above, below - numbers)
    return depths


def find_center(mask: BoolArray, geometry: ImageGeometry, rule: ClickRule) -> FloatArray:
    """(2,) float32 centre of an (H, W) mask, (x, y) in the input frame.

    Args:
        mask: original frame.
        geometry: of its image.
        rule: `exact` finds the deepest pixel in the original frame; `reference` brings the mask to
            the input frame first and takes the published code's transform (spec section 8).
    """
    if rule == "reference":
        return np.asarray(compute_center_point(resize_nearest(mask, geometry.input_hw)), np.float32)
    point: FloatArray = to_input_points(np.asarray([find_deepest_pixel(mask)]), geometry)[0]
    return point


def to_input_points(pixels: IntArray, geometry: ImageGeometry) -> FloatArray:
    """(N, 2) whole pixels (x, y) of the original frame as points of the input frame."""
    centers = pixels.astype(np.float32) + np.float32(0.5)
    return geometry.to_input_frame(centers) - np.float32(0.5)


def resize_nearest(mask: BoolArray, input_hw: tuple[int, int]) -> BoolArray:
    """Bring a mask to another size; a pixel takes what lies at its upper left corner."""
    height, width = mask.shape
    rows = np.arange(input_hw[0]) * height // input_hw[0]
    columns = np.arange(input_hw[1]) * width // input_hw[1]
    resized: BoolArray = mask[rows][:, columns]
    return resized


def draw_pixels(mask: BoolArray, count: int, seed: int) -> IntArray:
    """(count, 2) random pixels (x, y) of a mask that is not empty; each once while they last."""
    inside = np.flatnonzero(mask.ravel(order="C"))
    rng = np.random.default_rng(seed)
    chosen = inside[rng.choice(len(inside), count, replace=len(inside) < count)]
    y, x = np.divmod(chosen, mask.shape[1])
    return np.stack([x, y], axis=1).astype(np.int64)
