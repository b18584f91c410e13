"""COCO strings, areas and boxes of masks, all masks at once, from their transitions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ovsam_cli.mask_edges.transitions import Transitions
from ovsam_cli.structures import FloatArray, IntArray

_OFFSET, _MORE, _BITS = 48, 0x20, 5


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """N masks as COCO writes them.

    Attributes:
        counts: (N,) compressed run-length strings.
        areas: (N,) int64 pixels.
        boxes_xyxy: (N, 4) float32 pixels, exclusive right and bottom; zeros for an empty mask.
    """

    counts: tuple[str, ...]
    areas: IntArray
    boxes_xyxy: FloatArray


def count_runs(transitions: Transitions, height: int) -> MaskCounts:
    """Turn transitions into run lengths, and read areas and boxes off the runs.

    Args:
        transitions: of N masks.
        height: H, pixels a column.
    """
    stride, num_masks = transitions.stride, transitions.num_masks
    if not num_masks:
        return MaskCounts((), np.empty(0, np.int64), np.empty((0, 4), np.float32))
    owners = np.arange(num_masks)
    firsts = np.searchsorted(transitions.positions, np.arange(num_masks + 1) * stride)
    # The end of each mask closes its last run.
    run_ends = np.insert(transitions.positions, firsts[1:], owners * stride + stride - 1)
    starts, sizes = firsts[:-1] + owners, np.diff(firsts) + 1
    run_starts = np.empty_like(run_ends)
    run_starts[1:] = run_ends[:-1]
    run_starts[starts] = owners * stride
    order = np.arange(len(run_ends)) - np.repeat(starts, sizes)
    runs = run_ends - run_starts
    is_mask = (order & 1) == 1
    areas = np.add.reduceat(runs * is_mask, starts)
    offsets = np.repeat(owners * stride, sizes)[is_mask]
    boxes = _find_boxes(
        run_starts[is_mask] - offsets, run_ends[is_mask] - offsets - 1, sizes // 2, height
    )
    return MaskCounts(_write_strings(runs, order, starts), areas, boxes)


def _find_boxes(
    run_starts: IntArray, run_lasts: IntArray, num_runs: IntArray, height: int
) -> FloatArray:
    """(N, 4) corners from the first and last pixel of each foreground run."""
    boxes = np.zeros((len(num_runs), 4), np.float32)
    lit = np.flatnonzero(num_runs)
    if not len(lit):
        return boxes
    left, top = np.divmod(run_starts, height)
    right, bottom = np.divmod(run_lasts, height)
    wraps = left != right  # into the next column, so it has a lowest pixel and a topmost one
    top[wraps], bottom[wraps] = 0, height - 1
    firsts = (num_runs.cumsum() - num_runs)[lit]
    boxes[lit, 0] = np.minimum.reduceat(left, firsts)
    boxes[lit, 1] = np.minimum.reduceat(top, firsts)
    boxes[lit, 2] = np.maximum.reduceat(right, firsts) + 1
    boxes[lit, 3] = np.maximum.reduceat(bottom, firsts) + 1
    return boxes


def _write_strings(runs: IntArray, order: IntArray, starts: IntArray) -> tuple[str, ...]:
    """COCO's code of all runs (see `run_lengths`), cut at the masks' starts."""
    values = runs.copy()
    values[2:] -= np.where(order[2:] > 2, runs[:-2], 0)
    magnitude = np.where(values < 0, ~values, values)
    lengths = np.ones(len(values), np.int64)
    largest = int(magnitude.max())
    for bits in range(_BITS - 1, max(largest.bit_length(), 1), _BITS):
        lengths += magnitude >> bits != 0
    ends = lengths.cumsum()
    places = ends - lengths
    text = np.empty(int(ends[-1]), np.uint8)
    chosen = np.arange(len(values))
    for digit in range(int(lengths.max())):
        if digit:
            chosen = chosen[lengths[chosen] > digit]
        code = (values[chosen] >> (_BITS * digit)) & 0x1F
        code += _OFFSET + _MORE * (lengths[chosen] > digit + 1)
        text[places[chosen] + digit] = code
    joined = text.tobytes().decode("ascii")
    cuts = [*places[starts].tolist(), len(joined)]
    return tuple(joined[start:stop] for start, stop in pairwise(cuts))
