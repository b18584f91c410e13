"""Transitions of one mask after the other: the arithmetic of `mask_edges.transitions`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovsam_cli.mask_edges.axes import AxisSampling, MaskSampling, PositionArray
from ovsam_cli.mask_edges.compiled.decorators import compiled, inlined
from ovsam_cli.mask_edges.transitions import TIE, Transitions
from ovsam_cli.structures import FloatArray, IntArray


class _Axis(NamedTuple):
    """`AxisSampling`, as Numba takes it."""

    num_cells: int
    rows_to_pixels: float
    positions: PositionArray
    first_cells: IntArray
    left: PositionArray
    middle: PositionArray
    right: PositionArray
    first_rows: IntArray
    after: PositionArray
    before: PositionArray


def find_transitions(cells: FloatArray, sampling: MaskSampling) -> Transitions:
    """Both steps of `mask_edges.transitions`.

    Args:
        cells: (N, h, w) C-contiguous float32 logits minus the threshold, padded model frame.
        sampling: of the image all masks belong to.
    """
    positions = _find_positions(cells, _plain(sampling.rows), _plain(sampling.columns))
    return Transitions(positions, sampling.stride, len(cells))


def _plain(axis: AxisSampling) -> _Axis:
    return _Axis(
        axis.num_cells,
        axis.rows_to_pixels,
        axis.positions,
        axis.first_cells,
        *axis.weights,
        axis.first_rows,
        axis.shares_after,
        axis.shares_before,
    )


@inlined
def _mix(before: float, after: float, share: float) -> float:
    return (1 - share) * before + share * after


@inlined
def _find_zero(before: float, after: float) -> float:
    slope = before - after
    if slope == 0:
        slope = 1.0
    return min(max(before / slope, 0.0), 1.0)


@inlined
def _find_pixel(row: float, is_entry: bool, axis: _Axis) -> int:
    """The first pixel beyond a model pixel."""
    if not is_entry:
        row -= TIE
    last = len(axis.positions) - 1
    if row >= axis.positions[last]:
        return last + 1
    guess = min(max(int((row + 0.5) * axis.rows_to_pixels + 0.5), 0), last)
    if axis.positions[guess] <= row:
        guess += 1
    if guess > 0 and axis.positions[guess - 1] > row:
        guess -= 1
    return guess


@inlined
def _locate(values: tuple[float, float, float, float], segment: int, axis: _Axis) -> int:
    """The first pixel behind the sign change between the second and the third of four cells."""
    before, after = values[1], values[2]
    is_entry = after > before
    first = _mix(before, after, axis.after[segment])
    last = _mix(before, after, axis.before[segment + 1])
    if (first > 0) == is_entry:
        cell = segment
        last, first = _mix(values[0], before, axis.before[segment]), first
    elif (last > 0) != is_entry:
        cell = segment + 1
        first = _mix(after, values[3], axis.after[segment + 1])
    else:
        row = axis.first_rows[segment]
        num_steps = axis.first_rows[segment + 1] - 1 - row
        return _find_pixel(row + num_steps * _find_zero(first, last), is_entry, axis)
    row = axis.first_rows[cell] - 1
    if (last > 0) == (first > 0):
        return _find_pixel(row + 0.0, True, axis)
    return _find_pixel(row + _find_zero(last, first), first > last, axis)


@compiled
def _cut_row(line: FloatArray, axis: _Axis, changes: IntArray) -> int:
    """Write where a row of cells changes; returns how often, an even number."""
    count, last = 0, len(line) - 1
    if line[0] > 0:
        changes[0] = 0
        count = 1
    for left in range(axis.num_cells - 1):
        if (line[left] > 0) != (line[left + 1] > 0):
            values = (
                np.float64(line[max(left - 1, 0)]),
                np.float64(line[left]),
                np.float64(line[left + 1]),
                np.float64(line[min(left + 2, last)]),
            )
            changes[count] = _locate(values, left, axis)
            count += 1
    if line[axis.num_cells - 1] > 0:
        changes[count] = len(axis.positions)
        count += 1
    return count


@compiled
def _compare_rows(
    upper: IntArray, lower: IntArray, shift: int, ranges: IntArray, count: int, row: int
) -> int:
    """Append the ranges (row, start, stop) in which two rows differ; returns how many there are."""
    i, j, start, is_open = 0, 0, 0, False
    while i < len(upper) or j < len(lower):
        if j == len(lower) or (i < len(upper) and upper[i] + shift <= lower[j]):
            place = upper[i] + shift
            i += 1
        else:
            place = lower[j]
            j += 1
        if is_open and place > start:
            ranges[count, 0], ranges[count, 1], ranges[count, 2] = row, start, place
            count += 1
        start, is_open = place, not is_open
    return count


@compiled
def _find_ranges(cells: FloatArray, rows: _Axis, columns: _Axis) -> IntArray:
    """(Q, 3) upper row, first and last pixel column (exclusive), as `ColumnRanges`."""
    num_rows = rows.num_cells
    changes = np.empty((num_rows, columns.num_cells + 2), np.int64)
    counts = np.empty(num_rows, np.int64)
    for row in range(num_rows):
        counts[row] = _cut_row(cells[row], columns, changes[row])
    ranges = np.empty((counts.sum(), 3), np.int64)
    count = 0
    for row in range(num_rows):
        lower, shift = (row + 1, 0) if row + 1 < num_rows else (0, 1)
        count = _compare_rows(
            changes[row, : counts[row]], changes[lower, : counts[lower]], shift, ranges, count, row
        )
    return ranges[:count]


@compiled
def _find_changes(
    cells: FloatArray, ranges: IntArray, rows: _Axis, columns: _Axis
) -> tuple[IntArray, IntArray]:
    """Pixel rows of all changes, column by column in order, and where each column ends."""
    width, last = len(columns.positions), cells.shape[0] - 1
    ends = np.zeros(width + 2, np.int64)
    for turn in range(len(ranges)):
        ends[ranges[turn, 1]] += 1
        ends[ranges[turn, 2]] -= 1
    ends = ends.cumsum().cumsum()
    starts = np.zeros(width + 2, np.int64)
    starts[1:] = ends[:-1]
    places = starts.copy()
    changes = np.empty(ends[width], np.int64)
    for turn in range(len(ranges)):
        row = ranges[turn, 0]
        for x in range(ranges[turn, 1], ranges[turn, 2]):
            pixel = 0  # the last row's ranges: the top of the column
            if row < rows.num_cells - 1:
                values = (
                    _read(cells, max(row - 1, 0), x, columns),
                    _read(cells, row, x, columns),
                    _read(cells, row + 1, x, columns),
                    _read(cells, min(row + 2, last), x, columns),
                )
                pixel = _locate(values, row, rows)
            place = places[x]
            while place > starts[x] and changes[place - 1] > pixel:  # tops come last
                changes[place] = changes[place - 1]
                place -= 1
            changes[place] = pixel
            places[x] += 1
    return changes, ends


@inlined
def _read(cells: FloatArray, row: int, x: int, columns: _Axis) -> float:
    """A row of cells at a pixel column."""
    first = columns.first_cells[x]
    value: float = columns.left[x] * cells[row, first]
    value += columns.middle[x] * cells[row, first + 1]
    value += columns.right[x] * cells[row, first + 2]
    return value


@compiled
def _append_transitions(
    changes: IntArray, ends: IntArray, height: int, positions: IntArray, offset: int
) -> int:
    """Write offset + x * H + y, two changes in one place left out; returns how many remain."""
    count, column = 0, 0
    for turn in range(len(changes)):
        while ends[column] <= turn:
            column += 1
        position = offset + column * height + changes[turn]
        if count and positions[count - 1] == position:
            count -= 1
        else:
            positions[count] = position
            count += 1
    if count and positions[count - 1] == offset + (len(ends) - 2) * height:
        count -= 1
    return count


@compiled
def _find_positions(cells: FloatArray, rows: _Axis, columns: _Axis) -> IntArray:
    """Transitions of all masks, as `Transitions.positions`."""
    height = len(rows.positions)
    stride = height * len(columns.positions) + 1
    positions, count = np.empty(1 << 12, np.int64), 0
    for number in range(len(cells)):
        ranges = _find_ranges(cells[number], rows, columns)
        changes, ends = _find_changes(cells[number], ranges, rows, columns)
        if count + len(changes) > len(positions):
            longer = np.empty(2 * (count + len(changes)), np.int64)
            longer[:count] = positions[:count]
            positions = longer
        count += _append_transitions(changes, ends, height, positions[count:], number * stride)
    return positions[:count]
