"""Transitions of masks from low-resolution logits: the NumPy form, vectorized over the masks.

A *transition* is a position p = x * H + y, column by column as COCO counts them, whose pixel has
another sign than the one at p - 1; before position 0 lies background. Nothing here loops over
masks, cells or pixels, and all arrays but one bool a cell are as long as the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovsam_cli.mask_edges.axes import AxisSampling, MaskSampling, PositionArray
from ovsam_cli.structures import BoolArray, FloatArray, IntArray

# Subtracted where the mask ends, so that a pixel of exactly 0 is background on either side. In
# model pixels; no logit changes by more than 1e-7 over it.
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Transitions:
    """Where each of N masks changes between background and foreground.

    Attributes:
        positions: (T,) int64, n * stride + x * H + y, increasing; the first of each mask enters
            the foreground. A change at the very end, n * stride + H * W, is left out.
        stride: positions a mask, H * W + 1.
        num_masks: N.
    """

    positions: IntArray
    stride: int
    num_masks: int


@dataclass(frozen=True, slots=True)
class ColumnRanges:
    """Q ranges of pixel columns in which two neighboring rows of cells differ in sign.

    Attributes:
        mask_index, upper_row: (Q,) the two rows are `upper_row` and the one below it. The last row
            has none below: its "range" are the columns whose top differs from the end of the
            column before, so the mask changes at pixel 0 of them.
        starts, stops: (Q,) pixel columns, at most W; W itself at the last row only.
    """

    mask_index: IntArray
    upper_row: IntArray
    starts: IntArray
    stops: IntArray

    def take(self, chosen: IntArray | BoolArray) -> ColumnRanges:
        """The ranges at these indices, or where true."""
        return ColumnRanges(
            self.mask_index[chosen], self.upper_row[chosen], self.starts[chosen], self.stops[chosen]
        )


def find_column_ranges(cells: FloatArray, sampling: MaskSampling) -> ColumnRanges:
    """First step: cut each row of cells at its sign changes, compare it with the row below.

    Args:
        cells: (N, h, w) C-contiguous float32 logits minus the threshold, padded model frame.
        sampling: of the image all masks belong to.

    Returns:
        The ranges, ordered by mask and row.
    """
    num_rows, width = sampling.rows.num_cells, sampling.original_hw[1]
    lines, changes = _find_row_changes(cells, sampling)
    row = lines % num_rows
    is_first, is_last = row == 0, row == num_rows - 1
    # Each row takes part in two comparisons, its own with the row below and that of the row above.
    # The last row is compared with the top of the next pixel column, hence the shift by one.
    above = lines - 1 + np.where(is_first, num_rows, 0)
    step = width + 2
    keys = np.concatenate([lines * step + changes + is_last, above * step + changes])
    keys.sort()
    # Two changes in one place cancel, and so does a range from a column to itself.
    starts, stops = keys.reshape(-1, 2).T
    used = starts != stops
    starts, stops = starts[used], stops[used]
    compared = starts // step
    return ColumnRanges(
        mask_index=compared // num_rows,
        upper_row=compared % num_rows,
        starts=starts - compared * step,
        stops=stops - compared * step,
    )


def _find_row_changes(cells: FloatArray, sampling: MaskSampling) -> tuple[IntArray, IntArray]:
    """Rows of cells n * h' + i, and the pixel columns from which on each has another sign.

    A row begins and ends as background, so each has an even number of changes; those before the
    first pixel column stand at 0, those behind the last at W.
    """
    num_rows, num_columns = sampling.rows.num_cells, sampling.columns.num_cells
    is_inside = cells[:, :num_rows, :num_columns] > 0
    is_inside = is_inside.reshape(-1, num_columns)
    is_change = is_inside[:, 1:] != is_inside[:, :-1]
    lines, left = np.divmod(np.flatnonzero(is_change), max(num_columns - 1, 1))
    first_cell = (lines // num_rows * cells.shape[1] + lines % num_rows) * cells.shape[2]
    crossings = _locate_changes(_RowValues(cells.ravel(), first_cell), left, sampling.columns)
    starting, ending = np.flatnonzero(is_inside[:, 0]), np.flatnonzero(is_inside[:, -1])
    width = sampling.original_hw[1]
    changes = [np.zeros(len(starting), np.int64), crossings, np.full(len(ending), width)]
    return np.concatenate([starting, lines, ending]), np.concatenate(changes)


def find_transitions(
    cells: FloatArray, ranges: ColumnRanges, sampling: MaskSampling
) -> Transitions:
    """Second step: in each column of each range, the pixel where the sign changes.

    Args:
        cells, sampling: as for `find_column_ranges`.
        ranges: all of these masks, or a part whose transitions `merge_transitions` joins.
    """
    height = sampling.original_hw[0]
    lengths = ranges.stops - ranges.starts
    ends = lengths.cumsum()
    which = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(which)) + (ranges.starts - ends + lengths)[which]
    row, mask_index = ranges.upper_row[which], ranges.mask_index[which]
    tops = mask_index * sampling.stride + column * height
    is_crossing = row < sampling.rows.num_cells - 1
    if not is_crossing.all():
        row, mask_index, column = row[is_crossing], mask_index[is_crossing], column[is_crossing]
    axis = sampling.columns
    values = _ColumnValues(
        cells.ravel(),
        mask_index * (cells.shape[1] * cells.shape[2]) + axis.first_cells[column],
        tuple(weight[column] for weight in axis.weights),
        cells.shape[2],
    )
    tops[is_crossing] += _locate_changes(values, row, sampling.rows)
    return _collect(tops, sampling.stride, len(cells))


def merge_transitions(parts: Sequence[Transitions]) -> Transitions:
    """The transitions of all ranges from those of parts of the ranges, of the same masks."""
    together = np.concatenate([part.positions for part in parts])
    return _collect(together, parts[0].stride, parts[0].num_masks)


def _collect(changes: IntArray, stride: int, num_masks: int) -> Transitions:
    """Changes in any order to transitions; two changes in one place are none."""
    changes.sort()
    ends = np.arange(1, num_masks + 1) * stride - 1
    return Transitions(_drop_ends(_cancel_pairs(changes), ends), stride, num_masks)


def _cancel_pairs(positions: IntArray) -> IntArray:
    """What occurs an odd number of times in sorted positions."""
    if len(positions) < 2:
        return positions
    starts = np.flatnonzero(np.concatenate([[True], positions[1:] != positions[:-1]]))
    if len(starts) == len(positions):
        return positions
    kept: IntArray = positions[starts[np.diff(starts, append=len(positions)) % 2 == 1]]
    return kept


def _drop_ends(positions: IntArray, ends: IntArray) -> IntArray:
    """Sorted positions without those of the masks' ends."""
    places = np.searchsorted(positions, ends)
    is_there = places < len(positions)
    places, ends = places[is_there], ends[is_there]
    kept: IntArray = np.delete(positions, places[positions[places] == ends])
    return kept


@dataclass(frozen=True, slots=True)
class _RowValues:
    """Logits along rows of cells: `get(c)` is cell c of each of the E rows."""

    flat: FloatArray  # (N * h * w,)
    first: IntArray  # (E,) place of cell 0

    def get(self, cell: IntArray) -> PositionArray:
        values: PositionArray = self.flat[self.first + cell].astype(np.float64)
        return values

    def take(self, chosen: IntArray) -> _RowValues:
        return _RowValues(self.flat, self.first[chosen])


@dataclass(frozen=True, slots=True)
class _ColumnValues:
    """Logits down pixel columns: `get(i)` is row of cells i at each of the E columns."""

    flat: FloatArray  # (N * h * w,)
    first: IntArray  # (E,) place of the first cell of row 0 that the column reads
    weights: tuple[PositionArray, ...]  # of the three cells, (E,) each
    row_step: int

    def get(self, row: IntArray) -> PositionArray:
        place = self.first + row * self.row_step
        total: PositionArray = self.weights[0] * self.flat[place]
        place += 1
        total += self.weights[1] * self.flat[place]
        place += 1
        total += self.weights[2] * self.flat[place]
        return total

    def take(self, chosen: IntArray) -> _ColumnValues:
        weights = tuple(weight[chosen] for weight in self.weights)
        return _ColumnValues(self.flat, self.first[chosen], weights, self.row_step)


def _locate_changes(
    values: _RowValues | _ColumnValues, segments: IntArray, axis: AxisSampling
) -> IntArray:
    """The first original pixel behind the sign change in each of E segments; O if there is none.

    Args:
        values: what lies along the axis.
        segments: (E,) between this cell and the next, of opposite signs.
    """
    before, after = values.get(segments), values.get(segments + 1)
    is_entry = after > before
    first = _mix(before, after, axis.shares_after[segments])
    last = _mix(before, after, axis.shares_before[segments + 1])
    first_rows = axis.first_rows[segments]
    num_steps = axis.first_rows[segments + 1] - 1 - first_rows
    rows: PositionArray = first_rows + num_steps * _find_zero(first, last)
    # Told by the same numbers as in `_cross_bend`, or rounding could count a change twice.
    is_early = (first > 0) == is_entry
    is_bent = is_early | ((last > 0) != is_entry)
    bent = np.flatnonzero(is_bent)
    if len(bent):
        cell = segments[bent] + ~is_early[bent]
        rows[bent], is_entry[bent] = _cross_bend(values.take(bent), cell, axis)
    rows[~is_entry] -= TIE
    return _find_pixels_beyond(rows, axis)


def _find_pixels_beyond(rows: PositionArray, axis: AxisSampling) -> IntArray:
    """`searchsorted(axis.positions, rows, "right")` in a quarter of the time.

    Positions are equally spaced but for their rounding, so that a guess is one off at most.
    """
    positions, num_pixels = axis.positions, len(axis.positions)
    guess: IntArray = ((rows + 0.5) * axis.rows_to_pixels + 0.5).astype(np.int64)
    np.clip(guess, 0, num_pixels - 1, out=guess)
    guess += positions[guess] <= rows
    guess -= (positions[guess - 1] > rows) & (guess > 0)
    guess[rows >= positions[-1]] = num_pixels
    return guess


def _cross_bend(
    values: _RowValues | _ColumnValues, cell: IntArray, axis: AxisSampling
) -> tuple[PositionArray, BoolArray]:
    """Model pixels (E,) of sign changes across a cell's center, and whether they enter the mask.

    Where both sides have one sign, the segments on both sides changed theirs: the two changes
    cancel, if only they stand in the same place.
    """
    center, last_cell = values.get(cell), len(axis.shares_after) - 1
    before = _mix(values.get((cell - 1).clip(min=0)), center, axis.shares_before[cell])
    after = _mix(center, values.get((cell + 1).clip(max=last_cell)), axis.shares_after[cell])
    is_change = (before > 0) != (after > 0)
    share: PositionArray = np.where(is_change, _find_zero(before, after), 0.0)
    rows: PositionArray = (axis.first_rows[cell] - 1) + share
    return rows, (after > before) | ~is_change


def _mix(before: PositionArray, after: PositionArray, share: PositionArray) -> PositionArray:
    mixed: PositionArray = (1 - share) * before + share * after
    return mixed


def _find_zero(before: PositionArray, after: PositionArray) -> PositionArray:
    """(E,) share of the way at which a line from `before` to `after` is 0; in [0, 1] always."""
    slope = before - after
    slope[slope == 0] = 1  # only where rounding took the sign of a value near 0
    share: PositionArray = (before / slope).clip(0, 1)
    return share
