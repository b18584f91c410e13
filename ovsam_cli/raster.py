"""Pixel arithmetic in numpy: resizing with the same numbers as OpenCV and torch, gray scaling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import FloatArray

RgbArray = NDArray[np.uint8]

# Both source positions of each output position along an axis, and their weights.
Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]

_COEF_BITS = 11  # OpenCV's INTER_RESIZE_COEF_BITS
_ROWS_PER_BLOCK = 32  # keeps the working set in the cache


def resize_bilinear(
    rgb: RgbArray, output_hw: tuple[int, int], *, compiled: bool = False
) -> RgbArray:
    """Resize (H, W, 3) uint8 to `output_hw`, bit for bit as OpenCV's INTER_LINEAR on uint8.

    OpenCV rounds the weights to 11 bits, drops 4 bits between the two passes and 16 after each
    product, does not antialias, and averages 2 x 2 blocks when both sides are halved exactly.

    Args:
        rgb: (H, W, 3) uint8.
        output_hw: (height, width) in pixels.
        compiled: use Numba, which must be installed; same result.
    """
    (height, width), (out_height, out_width) = rgb.shape[:2], output_hw
    if (height, width) == (out_height, out_width):
        return rgb
    if (height, width) == (2 * out_height, 2 * out_width):
        return _halve(rgb)
    columns = _compute_taps(width, out_width, clamp=True)
    rows = _compute_taps(height, out_height, clamp=False)
    if compiled:
        from ovsam_cli.compiled_resize import resize_rows  # a second, and optional

        made = np.empty((out_height, out_width * 3), np.uint8)
        resize_rows(np.ascontiguousarray(rgb).reshape(height, width * 3), columns, rows, made)
        return made.reshape(out_height, out_width, 3)
    return _resize_in_blocks(rgb, columns, rows)


def _resize_in_blocks(rgb: RgbArray, columns: Taps, rows: Taps) -> RgbArray:
    height, width = rgb.shape[:2]
    left, right, left_weight, right_weight = columns
    top, bottom, top_weight, bottom_weight = rows
    out_height, out_width = len(top), len(left)
    left_byte, right_byte = ((x[:, None] * 3 + np.arange(3)).ravel() for x in (left, right))
    left_weight, right_weight = np.repeat(left_weight, 3), np.repeat(right_weight, 3)
    needed, row_of = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    flat = np.ascontiguousarray(rgb).reshape(height, width * 3)
    stretched = np.empty((len(needed), out_width * 3), np.int16)  # at most 255 * 2048 >> 4
    for start in range(0, len(needed), _ROWS_PER_BLOCK):
        block = flat[needed[start : start + _ROWS_PER_BLOCK]]
        total = block.take(left_byte, axis=1) * left_weight
        total += block.take(right_byte, axis=1) * right_weight
        stretched[start : start + _ROWS_PER_BLOCK] = total >> 4
    resized = np.empty((out_height, out_width * 3), np.uint8)
    for start in range(0, out_height, _ROWS_PER_BLOCK):
        chosen = slice(start, min(start + _ROWS_PER_BLOCK, out_height))
        upper = stretched[row_of[:out_height][chosen]] * top_weight[chosen, None]
        lower = stretched[row_of[out_height:][chosen]] * bottom_weight[chosen, None]
        upper >>= 16
        lower >>= 16
        resized[chosen] = (upper + lower + 2) >> 2
    return resized.reshape(out_height, out_width, 3)


def _halve(rgb: RgbArray) -> RgbArray:
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    blocks = rgb.reshape(height, 2, width, 2, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.uint16) + np.uint16(2)
    halved: RgbArray = (total >> 2).astype(np.uint8)
    return halved


def _compute_taps(size: int, out_size: int, *, clamp: bool) -> Taps:
    """Both source positions and their 11-bit weights along one axis.

    OpenCV clamps the weights at the image's edge along x only; along y it clamps positions.
    """
    position = ((np.arange(out_size) + 0.5) * (1.0 / (out_size / size)) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    weight = position - first.astype(np.float32)
    if clamp:
        weight[(first < 0) | (first >= size - 1)] = 0
        first = first.clip(0, size - 1)
    one = np.float32(1 << _COEF_BITS)
    second_weight = np.rint(weight * one).astype(np.int32)
    first_weight = np.rint((np.float32(1) - weight) * one).astype(np.int32)
    edge = size - 1
    return first.clip(0, edge), (first + 1).clip(0, edge), first_weight, second_weight


def find_bilinear_positions(size: int, out_size: int) -> FloatArray:
    """(out_size,) float32 source pixels of a resize, below 0 before the first pixel's center.

    Computed in float32 as torch does, so that weights are the same to the last bit.
    """
    scale, half = np.float32(size) / np.float32(out_size), np.float32(0.5)
    positions: FloatArray = scale * (np.arange(out_size, dtype=np.float32) + half) - half
    return positions


def build_bilinear_matrix(size: int, out_size: int) -> FloatArray:
    """The (out_size, size) float32 matrix that resizes one axis.

    `build_bilinear_matrix(h, H) @ plane @ build_bilinear_matrix(w, W).T` equals
    `torch.nn.functional.interpolate(..., (H, W), mode="bilinear", align_corners=False)`.
    """
    position = find_bilinear_positions(size, out_size).clip(min=0)
    first = np.floor(position).astype(np.int64).clip(max=size - 1)
    weight = position - first.astype(np.float32)
    matrix = np.zeros((out_size, size), np.float32)
    rows = np.arange(out_size)
    matrix[rows, first] += np.float32(1) - weight
    matrix[rows, (first + 1).clip(max=size - 1)] += weight
    return matrix


def scale_deep_gray(values: NDArray[np.generic]) -> tuple[NDArray[np.uint8], str]:
    """Map gray of more than 8 bits to 0..255 linearly; Pillow's own conversion would saturate.

    The range is 0..65535 for data that fills 16 bits, 0..1 or 0..255 for data within it, and
    the 0.1 and 99.9 percentiles for all else (10 to 14 bits in 16, heights, temperatures).

    Args:
        values: (H, W) integers or floats; NaN counts as the lower end.

    Returns:
        (H, W) uint8, and a sentence on what was done.
    """
    gray = values.astype(np.float64)
    finite = gray[np.isfinite(gray)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if least >= 0 and 1 << 14 <= most <= 65535:
        low, high = 0.0, 65535.0
    elif least >= 0 and most <= 1 and values.dtype.kind == "f":
        low, high = 0.0, 1.0
    elif least >= 0 and most <= 255:
        low, high = 0.0, 255.0
    else:
        low, high = (float(edge) for edge in np.percentile(finite, (0.1, 99.9)))
    gray = np.nan_to_num(gray, nan=low, posinf=high, neginf=low)
    scaled = (gray - low) * (255.0 / max(high - low, 1e-12))
    levels: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    if not finite.size:
        return levels, "no gray value is a number: the picture counts as black"
    note = f"gray values {low:g}..{high:g} scaled to 0..255 (found {least:g}..{most:g})"
    return levels, note
