"""One axis of the way from low-resolution cells to original pixels (spec section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.raster import find_bilinear_positions
from ovsam_cli.structures import ImageGeometry, IntArray

PositionArray = NDArray[np.float64]

_MIN_CELLS = 3  # a pixel is a mixture of three neighboring cells


@dataclass(frozen=True, slots=True)
class AxisSampling:
    """How O original pixels read n cells through S model pixels, of which R show the image.

    A *segment* i is what lies between the centers of cells i and i + 1. The S model pixels sample
    it at rows `first_rows[i]` to `first_rows[i + 1] - 1`, and the original pixels interpolate
    between model pixels; so the value is linear along these rows, and linear, at another slope,
    across the center of each cell c, from row `first_rows[c] - 1` to `first_rows[c]`.

    Attributes:
        num_cells: n' <= n cells that any original pixel reads.
        rows_to_pixels: original pixels a model pixel, O / R.
        positions: (O,) model pixels, never decreasing, at most R - 1.
        first_cells: (O,) first of the three cells that an original pixel is a mixture of.
        weights: of each of these cells (O,), at least 0.
        first_rows: (n + 1,) first model pixel at or beyond the center of each cell; S at the end.
        shares_after: (n,) share of cell c + 1 in model pixel `first_rows[c]`, the rest is cell c's.
        shares_before: (n,) share of cell c in model pixel `first_rows[c] - 1`, rest c - 1's.
    """

    num_cells: int
    rows_to_pixels: float
    positions: PositionArray
    first_cells: IntArray
    weights: tuple[PositionArray, PositionArray, PositionArray]
    first_rows: IntArray
    shares_after: PositionArray
    shares_before: PositionArray


@dataclass(frozen=True, slots=True)
class MaskSampling:
    """Both axes of masks of one image: (h, w) cells to (H, W) original pixels."""

    low_hw: tuple[int, int]
    original_hw: tuple[int, int]
    rows: AxisSampling
    columns: AxisSampling

    @property
    def stride(self) -> int:
        """Positions a mask: its H * W pixels and the end behind them."""
        return self.original_hw[0] * self.original_hw[1] + 1


@lru_cache(maxsize=16)
def sample_mask(low_hw: tuple[int, int], geometry: ImageGeometry) -> MaskSampling | None:
    """Both axes, or None where a mask has fewer model pixels than cells, or fewer than 3 cells.

    In that case cells would lie between neighboring pixels and be skipped, which no sign change
    may be. The sizes of the released models (256 cells of 1024 pixels, 128 of 512) never are.
    """
    if min(low_hw) < _MIN_CELLS or max(low_hw) > geometry.model_size:
        return None
    rows, columns = (
        _sample_axis(cells, geometry.model_size, inner, outer)
        for cells, inner, outer in zip(low_hw, geometry.input_hw, geometry.original_hw, strict=True)
    )
    return MaskSampling(low_hw, geometry.original_hw, rows, columns)


def _sample_axis(cells: int, model_size: int, inner: int, outer: int) -> AxisSampling:
    positions = find_bilinear_positions(inner, outer).astype(np.float64).clip(0, inner - 1)
    in_cells = find_bilinear_positions(cells, model_size).astype(np.float64)
    first_rows = np.searchsorted(in_cells, np.arange(cells + 1))
    first_rows[cells] = model_size
    clamped = in_cells.clip(0, cells - 1)
    # The last row's own share, where the model ends before a cell's center, is never read.
    after = clamped[first_rows[:cells].clip(max=model_size - 1)] - np.arange(cells)
    before = clamped[(first_rows[:cells] - 1).clip(min=0)] - (np.arange(cells) - 1)
    first_cells, weights = _mix_cells(positions, clamped, cells, inner)
    read = first_cells[-1] + np.flatnonzero(weights[:, -1])[-1] + 1
    return AxisSampling(
        num_cells=int(read),
        rows_to_pixels=outer / inner,
        positions=positions,
        first_cells=first_cells,
        weights=(weights[0], weights[1], weights[2]),
        first_rows=first_rows,
        shares_after=after.clip(0, 1),
        shares_before=before.clip(0, 1),
    )


def _mix_cells(
    positions: PositionArray, in_cells: PositionArray, cells: int, inner: int
) -> tuple[IntArray, PositionArray]:
    """First cell (O,) and weights (3, O) of the cells in each original pixel."""
    pixels = np.arange(len(positions))
    near = np.floor(positions).astype(np.int64)
    near_cells = np.floor(in_cells[near]).astype(np.int64)
    first_cells = near_cells.clip(max=cells - _MIN_CELLS)
    weights = np.zeros((_MIN_CELLS, len(positions)))
    share = positions - near
    for row, part in ((near, 1 - share), ((near + 1).clip(max=inner - 1), share)):
        cell = np.floor(in_cells[row]).astype(np.int64)
        within = in_cells[row] - cell
        weights[cell - first_cells, pixels] += part * (1 - within)
        weights[(cell + 1).clip(max=cells - 1) - first_cells, pixels] += part * within
    return first_cells, weights
