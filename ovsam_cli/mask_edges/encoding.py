"""Logits to encoded masks in bounded memory, whatever the number of masks and their noise."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np

from ovsam_cli.mask_edges.axes import MaskSampling
from ovsam_cli.mask_edges.counts import MaskCounts, count_runs
from ovsam_cli.mask_edges.transitions import (
    ColumnRanges,
    Transitions,
    find_column_ranges,
    find_transitions,
    merge_transitions,
)
from ovsam_cli.structures import FloatArray

_CELLS_AT_ONCE = 1 << 21  # 32 masks of 256 x 256: arrays long enough for numpy, and in the cache
_MASKS_TO_COMPILE_FOR = 20_000
_COLUMNS_AT_ONCE = 1 << 19  # sign changes looked for at once, about 150 bytes each


def is_compiling_worthwhile(num_masks: int) -> bool:
    """Whether so many masks repay what Numba takes to start, and Numba is installed.

    It saves about half of the 0.3 ms a mask that the NumPy form takes, and importing it with what
    it keeps on disk takes about a second. The first time on a machine it compiles: 17 core seconds.
    """
    return num_masks >= _MASKS_TO_COMPILE_FOR and find_spec("numba") is not None


def encode_cells(
    cells: FloatArray, sampling: MaskSampling, *, compiled: bool = False
) -> MaskCounts:
    """Encode the masks of positive logits.

    Args:
        cells: (N, h, w) float32 logits minus the threshold, padded model frame.
        sampling: of the image all masks belong to.
        compiled: use Numba, which must be installed; same result. See `is_compiling_worthwhile`.
    """
    step = max(_CELLS_AT_ONCE // (cells.shape[1] * cells.shape[2]), 1)
    encode = _encode_compiled if compiled else _encode
    parts = [
        encode(np.ascontiguousarray(cells[start : start + step]), sampling)
        for start in range(0, len(cells), step)
    ]
    if len(parts) == 1:
        return parts[0]
    return MaskCounts(
        tuple(text for part in parts for text in part.counts),
        np.concatenate([np.empty(0, np.int64), *(part.areas for part in parts)]),
        np.concatenate([np.empty((0, 4), np.float32), *(part.boxes_xyxy for part in parts)]),
    )


def _encode(cells: FloatArray, sampling: MaskSampling) -> MaskCounts:
    return count_runs(_find_in_turns(cells, sampling), sampling.original_hw[0])


def _encode_compiled(cells: FloatArray, sampling: MaskSampling) -> MaskCounts:
    from ovsam_cli.mask_edges.compiled import counts, transitions  # a second, and optional

    found = transitions.find_transitions(cells, sampling)
    return counts.count_runs(found, sampling.original_hw[0])


def _find_in_turns(cells: FloatArray, sampling: MaskSampling) -> Transitions:
    ranges = find_column_ranges(cells, sampling)
    found = [find_transitions(cells, part, sampling) for part in split_ranges(ranges)]
    return found[0] if len(found) == 1 else merge_transitions(found)


def split_ranges(
    ranges: ColumnRanges, columns_at_once: int = _COLUMNS_AT_ONCE
) -> Iterator[ColumnRanges]:
    """Parts of at most so many columns each, but for a single range that has more; at least one.

    Only noise needs more than one: a mask has about as many columns as transitions.
    """
    ends = (ranges.stops - ranges.starts).cumsum()
    if not len(ends) or ends[-1] <= columns_at_once:
        yield ranges
        return
    groups = (ends - 1) // columns_at_once
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    for start, stop in zip(firsts, [*firsts[1:], len(ends)], strict=True):
        yield ranges.take(np.arange(start, stop))
