"""Masks of logits that lie on a device: only the transitions come to the host.

The steps are those of `mask_edges.transitions` as torch operations; see there for what they do. The
host waits for the device where a result's length is needed: twice while the rows of cells are cut,
twice while the columns are.

Runs on CUDA use it for large images where Numba is not at hand, because NumPy takes longer there.
From which size on it wins has not been measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ovsam_cli import masks
from ovsam_cli.mask_edges.axes import AxisSampling, MaskSampling, sample_mask
from ovsam_cli.mask_edges.counts import count_runs
from ovsam_cli.mask_edges.transitions import TIE, Transitions
from ovsam_cli.structures import ImageGeometry, IntArray

# NumPy takes 0.3 ms a mask of an image of 0.3 million pixels and 1 ms at 12 million.
LARGE_PIXELS = 2_000_000
# Sign changes looked for at once, some 300 bytes each. Only noise has more.
_MOST_COLUMNS = 1 << 22

_Values = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Axis:
    """`AxisSampling` on a device."""

    num_cells: int
    rows_to_pixels: float
    positions: Tensor
    first_cells: Tensor
    weights: Tensor
    first_rows: Tensor
    shares_after: Tensor
    shares_before: Tensor


def is_large(geometry: ImageGeometry) -> bool:
    """Whether masks of an image are encoded where their logits are, if that is a GPU."""
    height, width = geometry.original_hw
    return height * width >= LARGE_PIXELS


def encode_beside(
    mask_logits: Tensor, rows: IntArray, geometry: ImageGeometry
) -> masks.EncodedMasks:
    """Encode some masks while the device's own stream goes on with the network.

    Args:
        mask_logits: (B, 1, h, w) float, computed to the end: nothing here waits for that.
        rows: (n,) int64 which of them.
        geometry: of the image all n masks belong to.

    Raises:
        torch.OutOfMemoryError: the network has left too little of the device.
    """
    device = mask_logits.device
    # What is read back ends the stream's work, so that the logits may be freed after it.
    stream = torch.cuda.Stream(device) if mask_logits.is_cuda else None  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):  # None changes nothing
        return encode_device_logits(mask_logits[torch.from_numpy(rows).to(device), 0], geometry)


def encode_device_logits(
    mask_logits: Tensor, geometry: ImageGeometry, *, mask_threshold: float = 0.0
) -> masks.EncodedMasks:
    """As `masks.encode_mask_logits`, the same result but for rounding.

    Args:
        mask_logits: (B, h, w) float, padded model frame, any device that has float64.
        geometry: of the image all B masks belong to.
        mask_threshold: cut on logits.
    """
    low_height, low_width = mask_logits.shape[-2:]
    sampling = sample_mask((low_height, low_width), geometry)
    cells = mask_logits.float() - mask_threshold
    if sampling is None or not len(cells):
        return masks.encode_mask_logits(cells.cpu().numpy(), geometry)
    transitions = find_device_transitions(cells.contiguous(), sampling)
    if transitions is None:
        return masks.encode_mask_logits(cells.cpu().numpy(), geometry)
    return masks.name_counts(count_runs(transitions, geometry.original_hw[0]), geometry)


def find_device_transitions(cells: Tensor, sampling: MaskSampling) -> Transitions | None:
    """Both steps of `mask_edges.transitions`, on the device of the cells.

    None for noise, which would take gigabytes: the NumPy form works on it part by part.

    Args:
        cells: (N, h, w) contiguous float32, at least one mask.
        sampling: of the image all masks belong to.
    """
    rows, columns = (_move(axis, cells.device) for axis in (sampling.rows, sampling.columns))
    compared, starts, stops = _find_ranges(cells, rows, columns)
    lengths = stops - starts
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total > _MOST_COLUMNS:
        return None
    which = torch.repeat_interleave(lengths, output_size=total)
    x = torch.arange(total, device=cells.device) + (starts - ends + lengths)[which]
    row, mask_index = (compared % rows.num_cells)[which], (compared // rows.num_cells)[which]
    changes = mask_index * sampling.stride + x * sampling.original_hw[0]
    # The last row's ranges are tops of columns, W among them; clamped, they read what is unused.
    is_crossing = row < rows.num_cells - 1
    if rows.num_cells > 1:
        pixels = _locate(
            _read_columns(cells, mask_index, x.clamp(max=sampling.original_hw[1] - 1), columns),
            row.clamp(max=rows.num_cells - 2),
            rows,
        )
        changes += torch.where(is_crossing, pixels, 0)
    positions, counts = torch.unique(changes, return_counts=True)
    is_kept = (counts % 2 == 1) & (positions % sampling.stride != sampling.stride - 1)
    return Transitions(positions[is_kept].cpu().numpy(), sampling.stride, len(cells))


def _move(axis: AxisSampling, device: torch.device) -> _Axis:
    return _Axis(
        axis.num_cells,
        axis.rows_to_pixels,
        torch.from_numpy(axis.positions).to(device),
        torch.from_numpy(axis.first_cells).to(device),
        torch.stack([torch.from_numpy(weight) for weight in axis.weights]).to(device),
        torch.from_numpy(axis.first_rows).to(device),
        torch.from_numpy(axis.shares_after).to(device),
        torch.from_numpy(axis.shares_before).to(device),
    )


def _find_ranges(cells: Tensor, rows: _Axis, columns: _Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Of Q ranges: mask and upper row n * h' + i, first and last pixel column (exclusive)."""
    width, num_rows = len(columns.positions), rows.num_cells
    is_inside = (cells[:, :num_rows, : columns.num_cells] > 0).flatten(0, 1)
    # Changes at the ends stand before the first cell and behind the last.
    edged = torch.nn.functional.pad(is_inside, (1, 1))
    lines, segments = (edged[:, 1:] != edged[:, :-1]).nonzero(as_tuple=True)
    segments = segments - 1
    places = (lines // num_rows * cells.shape[1] + lines % num_rows) * cells.shape[2]
    flat = cells.flatten()
    if columns.num_cells > 1:
        inner = segments.clamp(0, columns.num_cells - 2)
        changes = _locate(lambda cell: flat[places + cell].double(), inner, columns)
    else:
        changes = torch.zeros_like(segments)
    changes = torch.where(segments < 0, 0, changes)
    changes = torch.where(segments == columns.num_cells - 1, width, changes)
    row = lines % num_rows
    above = lines - 1 + torch.where(row == 0, num_rows, 0)
    step = width + 2
    keys = torch.cat([lines * step + changes + (row == num_rows - 1), above * step + changes])
    starts, stops = keys.sort().values.view(-1, 2).unbind(1)
    compared = starts // step
    return compared, starts - compared * step, stops - compared * step


def _read_columns(cells: Tensor, mask_index: Tensor, x: Tensor, columns: _Axis) -> _Values:
    """What lies down pixel columns: a function of the row of cells, (E,) float64."""
    flat, row_step = cells.flatten(), cells.shape[2]
    places = mask_index * (cells.shape[1] * row_step) + columns.first_cells[x]
    left, middle, right = columns.weights[:, x]

    def read(row: Tensor) -> Tensor:
        first = places + row * row_step
        total: Tensor = left * flat[first] + middle * flat[first + 1]
        total = total + right * flat[first + 2]
        return total

    return read


def _locate(values: _Values, segments: Tensor, axis: _Axis) -> Tensor:
    """The first original pixel behind the sign change in each of E segments; O if none."""
    last_cell = len(axis.shares_after) - 1
    before, after = values(segments), values(segments + 1)
    is_entry = after > before
    first = _mix(before, after, axis.shares_after[segments])
    last = _mix(before, after, axis.shares_before[segments + 1])
    is_early, is_late = (first > 0) == is_entry, (last > 0) != is_entry
    cell = segments + ~is_early
    center = torch.where(is_early, before, after)
    outside = values(torch.where(is_early, segments - 1, segments + 2).clamp(0, last_cell))
    above = torch.where(is_early, _mix(outside, center, axis.shares_before[cell]), last)
    below = torch.where(is_early, first, _mix(center, outside, axis.shares_after[cell]))
    is_change = (above > 0) != (below > 0)
    bent = axis.first_rows[cell] - 1 + torch.where(is_change, _find_zero(above, below), 0)
    first_rows = axis.first_rows[segments]
    num_steps = axis.first_rows[segments + 1] - 1 - first_rows
    straight = first_rows + num_steps * _find_zero(first, last)
    is_bent = is_early | is_late
    is_entry = torch.where(is_bent, (below > above) | ~is_change, is_entry)
    places = torch.where(is_bent, bent, straight) - torch.where(is_entry, 0.0, TIE)
    return torch.searchsorted(axis.positions, places, right=True)


def _mix(before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    return (1 - share) * before + share * after


def _find_zero(before: Tensor, after: Tensor) -> Tensor:
    slope = before - after
    return (before / torch.where(slope == 0, 1.0, slope)).clamp(0, 1)
