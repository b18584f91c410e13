"""Connected regions and outlines of boolean masks, in plain numpy.

Both work on what changes along rows (runs, corners), not on every pixel, so a large smooth mask
costs as little as its outline is long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovsam_cli.structures import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class MaskPolygons:
    """Outlines of one mask.

    Attributes:
        polygons: (P,) flat [x0, y0, x1, y1, ...] in pixels of the mask's frame, one for each
            4-connected part, along the pixels' edges: (0, 0) is the outer corner of the first
            pixel, its center is (0.5, 0.5).
        num_holes: outlines of holes left out, which COCO polygons cannot express.
    """

    polygons: tuple[tuple[float, ...], ...]
    num_holes: int


def trace_outlines(mask: BoolArray) -> MaskPolygons:
    """Follow the pixel edges around every 4-connected part of an (H, W) mask.

    The corners of an outline pair up in row order along horizontal edges and in column order
    along vertical ones; walking the two pairings in turn goes around. Where two parts touch at
    a corner only, that point counts twice, once for each.
    """
    points, across, along = _pair_corners(mask)
    polygons: list[tuple[float, ...]] = []
    num_holes = 0
    seen = bytearray(len(points))
    corner_list = points.tolist()
    across_of, along_of = across.tolist(), along.tolist()
    for start, (top, left) in enumerate(corner_list):  # row order: a loop's top left corner first
        if seen[start]:
            continue
        polygon: list[float] = []
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            polygon += (float(corner_list[corner][1]), float(corner_list[corner][0]))
            corner = across_of[corner]
            seen[corner] = 1
            polygon += (float(corner_list[corner][1]), float(corner_list[corner][0]))
            corner = along_of[corner]
        if mask[top, left]:
            polygons.append(tuple(polygon))
        else:
            num_holes += 1
    return MaskPolygons(tuple(polygons), num_holes)


def _pair_corners(mask: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """Corners (C, 2) as (y, x) in row order, and each one's partner across and along (C,)."""
    padded = np.pad(mask, 1)
    above_left, above_right = padded[:-1, :-1], padded[:-1, 1:]
    below_left, below_right = padded[1:, :-1], padded[1:, 1:]
    ys, xs = np.nonzero(above_left ^ above_right ^ below_left ^ below_right)
    saddle = (above_left == below_right) & (above_right == below_left) & (above_left ^ above_right)
    saddle_ys, saddle_xs = np.nonzero(saddle)
    ys, xs = (np.concatenate([a, b, b]) for a, b in ((ys, saddle_ys), (xs, saddle_xs)))
    # A saddle's first copy has the edge to the left, its second the one to the right.
    second = np.zeros(len(ys), np.int64)
    second[len(ys) - len(saddle_ys) :] = 1
    # The parts above left and below right, or above right and below left, stay apart.
    falling = above_left[ys, xs] & saddle[ys, xs]
    lower = np.where(falling, second, 1 - second)
    order = np.lexsort((second, xs, ys))
    ys, xs, lower = ys[order], xs[order], lower[order]
    across = np.arange(len(ys)) ^ 1
    by_column = np.lexsort((lower, ys, xs))
    along = np.empty(len(ys), np.int64)
    along[by_column] = by_column[np.arange(len(ys)) ^ 1]
    return np.stack([ys, xs], axis=1), across, along


@dataclass(frozen=True, slots=True)
class _Runs:
    """Horizontal runs of a mask and the connected region each belongs to.

    Attributes:
        starts, ends: (R,) positions in rows one pixel longer than the mask's, end exclusive.
        region: (R,) number of the region, any integers below R.
        areas: (R,) pixels of the region numbered so; 0 for unused numbers.
    """

    starts: IntArray
    ends: IntArray
    region: IntArray
    areas: IntArray


def remove_small_regions(mask: BoolArray, min_area: int) -> BoolArray:
    """Fill holes and drop islands smaller than `min_area` pixels in an (H, W) mask.

    Islands are 8-connected; holes are 4-connected background that does not reach the frame's
    edge. If every island is too small, the largest stays, so that an object never vanishes.
    """
    if min_area <= 0 or not mask.any():
        return mask
    y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = (slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1))
    # No hole reaches beyond the tight box, and background at its edge is open to the outside.
    cleaned = mask.copy()
    cleaned[box] = _clean(mask[box], min_area)
    return cleaned


def _clean(mask: BoolArray, min_area: int) -> BoolArray:
    height, width = mask.shape
    holes = _find_regions(~mask, diagonal=False)
    rows, columns = np.divmod(holes.starts, width + 1)
    at_edge = (rows == 0) | (rows == height - 1) | (columns == 0)
    at_edge |= holes.ends % (width + 1) == width
    open_regions = np.zeros(len(holes.areas), bool)
    open_regions[holes.region[at_edge]] = True
    filled = mask | _paint(holes, (holes.areas < min_area) & ~open_regions, mask.shape)

    islands = _find_regions(filled, diagonal=True)
    small = islands.areas < min_area
    small[islands.areas.argmax()] = False
    return filled & ~_paint(islands, small, mask.shape)


def _find_regions(mask: BoolArray, *, diagonal: bool) -> _Runs:
    width = mask.shape[1] + 1  # one column of background keeps the rows apart
    flat = np.concatenate([[False], np.pad(mask, ((0, 0), (0, 1))).ravel()])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = turns[::2], turns[1::2]
    # Runs of the next row that touch run i are a range, for both lists are sorted.
    first = np.searchsorted(ends, starts + width, side="left" if diagonal else "right")
    last = np.searchsorted(starts, ends + width, side="right" if diagonal else "left")
    counts = (last - first).clip(min=0)
    upper = np.repeat(np.arange(len(starts)), counts)
    offset = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    region = _join(len(starts), upper, np.repeat(first, counts) + offset)
    areas = np.bincount(region, weights=ends - starts, minlength=len(starts)).astype(np.int64)
    return _Runs(starts, ends, region, areas)


def _join(count: int, left: IntArray, right: IntArray) -> IntArray:
    """Number `count` things so that the two ends of every (left, right) pair share a number."""
    number = np.arange(count)
    while True:
        a, b = number[left], number[right]
        if np.array_equal(a, b):
            return number
        np.minimum.at(number, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(number, number[number]):  # every chain down to its root
            number = number[number]


def _paint(runs: _Runs, chosen: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    """(H, W) bool of the regions marked in `chosen` (R,)."""
    height, width = shape
    rows = chosen[runs.region]
    change = np.zeros(height * (width + 1) + 1, np.int8)
    change[runs.starts[rows]] += 1
    change[runs.ends[rows]] -= 1
    painted: BoolArray = np.cumsum(change[:-1], dtype=np.int8).astype(bool)
    return painted.reshape(height, width + 1)[:, :width]
