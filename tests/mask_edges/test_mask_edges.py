"""Masks from their transitions against dense masks made by torch, encoded by pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from logit_builders import KINDS, geometry_of, make_logits, upscale_with_torch
from pycocotools import mask as coco_mask

from ovsam_cli import masks
from ovsam_cli.mask_edges.axes import sample_mask
from ovsam_cli.mask_edges.counts import MaskCounts, count_runs
from ovsam_cli.mask_edges.encoding import encode_cells, is_compiling_worthwhile, split_ranges
from ovsam_cli.mask_edges.transitions import (
    find_column_ranges,
    find_transitions,
    merge_transitions,
)
from ovsam_cli.structures import ImageGeometry

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LIMIT = 1e-5  # logits; what float32 rounding leaves of a value between cells up to 18 large
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SIZES = [
    *[(480, 640), (640, 480), (256, 256), (256, 200), (257, 100), (300, 299), (1000, 40)],
    *[(40, 1000), (1, 500), (500, 1), (255, 200), (100, 100), (1, 1), (2, 3)],
]
# Cells and model pixels a side: of the published model, of `tiny`, and others.
MODELS = [(256, 1024), (128, 512), (64, 256), (64, 64), (32, 512)]


def encode(cells: np.ndarray, geometry: ImageGeometry) -> MaskCounts:
    sampling = sample_mask(cells.shape[1:], geometry)
    assert sampling is not None
    return encode_cells(cells, sampling)


def check_masks(cells: np.ndarray, geometry: ImageGeometry, found: MaskCounts) -> int:
    """Strings, areas and boxes are pycocotools' own; the pixels that differ, which are none."""
    dense = upscale_with_torch(cells, geometry)
    num_different = 0
    for row, counts in enumerate(found.counts):
        rle = {"size": list(geometry.original_hw), "counts": counts.encode()}
        decoded = coco_mask.decode(rle)
        assert coco_mask.encode(np.asfortranarray(decoded)) == rle  # no run of length 0
        different = dense[row][(dense[row] > 0) != decoded.astype(bool)]
        assert (np.abs(different) < LIMIT).all(), (row, np.abs(different).max())
        num_different += len(different)
        assert found.areas[row] == coco_mask.area(rle) == decoded.sum()
        x, y, width, height = coco_mask.toBbox(rle)
        assert found.boxes_xyxy[row].tolist() == [x, y, x + width, y + height]
    assert found.areas.dtype == np.int64 and found.boxes_xyxy.dtype == np.float32
    return num_different


@EVERY_KIND
@pytest.mark.parametrize("original_hw", SIZES)
def test_masks_are_the_dense_ones(original_hw: tuple[int, int], kind: str) -> None:
    geometry = geometry_of(*original_hw)
    cells = make_logits(kind, 2, 256)
    num_different = check_masks(cells, geometry, encode(cells, geometry))
    assert num_different == 0 or kind in ("noise", "ties", "stripes", "constant")


LARGE = [((1200, 1800), "smooth", 2), ((1200, 1800), "wiggly", 2), ((3000, 4000), "wiggly", 1)]


@pytest.mark.parametrize(("original_hw", "kind", "num_masks"), LARGE)
def test_large_masks_are_the_dense_ones(
    original_hw: tuple[int, int], kind: str, num_masks: int
) -> None:
    geometry = geometry_of(*original_hw)
    cells = make_logits(kind, num_masks, 256)
    check_masks(cells, geometry, encode(cells, geometry))


@EVERY_KIND
@pytest.mark.parametrize(("side", "model_size"), MODELS)
def test_random_sizes(side: int, model_size: int, kind: str) -> None:
    num_sizes, num_masks = (2, 6) if side > 100 else (6, 12)
    check_random_sizes(kind, (side, model_size), num_sizes, num_masks, seed=side)


@pytest.mark.slow
@EVERY_KIND
@pytest.mark.parametrize(("side", "model_size"), MODELS)
def test_many_random_sizes(side: int, model_size: int, kind: str) -> None:
    check_random_sizes(kind, (side, model_size), num_sizes=150, num_masks=12, seed=1000 + side)


def check_random_sizes(
    kind: str, sides: tuple[int, int], num_sizes: int, num_masks: int, seed: int
) -> None:
    """Masks of each of `num_sizes` sizes, from one pixel to four times the cells.

    `sides` are those of the cells and of the model frame.
    """
    side, model_size = sides
    generator = np.random.default_rng(seed)
    for number in range(num_sizes):
        height, width = np.rint(2 ** generator.uniform(0, 8.5, 2)).astype(int).tolist()
        geometry = geometry_of(height, width, model_size)
        cells = make_logits(kind, num_masks, side, seed + number)
        check_masks(cells, geometry, encode(cells, geometry))


@pytest.mark.parametrize(("side", "model_size"), [(100, 300), (3, 1024), (7, 10), (250, 251)])
@pytest.mark.parametrize("original_hw", [(97, 131), (300, 300), (20, 31)])
def test_odd_numbers_of_cells(side: int, model_size: int, original_hw: tuple[int, int]) -> None:
    geometry = geometry_of(*original_hw, model_size)
    cells = make_logits("smooth", 10, side)
    check_masks(cells, geometry, encode(cells, geometry))


def test_cells_need_not_be_square() -> None:
    geometry = geometry_of(90, 121, 256)
    cells = np.ascontiguousarray(make_logits("wiggly", 4, 64)[:, ::2])
    check_masks(cells, geometry, encode(cells, geometry))


@pytest.mark.parametrize("side", [2, 70])
def test_other_sizes_take_the_dense_path(side: int) -> None:
    geometry = geometry_of(30, 41, 64)
    cells = make_logits("smooth", 4, side)
    assert sample_mask((side, side), geometry) is None
    encoded = masks.encode_mask_logits(cells, geometry)
    counts = tuple(rle["counts"] for rle in encoded.segmentations)
    check_masks(cells, geometry, MaskCounts(counts, encoded.areas, encoded.boxes_xyxy))


def test_a_batch_is_its_masks() -> None:
    """More masks than are looked at together, empty ones first, last and among them."""
    geometry = geometry_of(60, 80, 1024)
    cells = np.concatenate([make_logits(kind, 4, 256) for kind in KINDS])
    cells[[0, 20, -1]] = -1
    together = encode(cells, geometry)
    single = [encode(cells[row : row + 1], geometry) for row in range(len(cells))]
    assert together.counts == tuple(one.counts[0] for one in single)
    assert together.areas.tolist() == [one.areas[0] for one in single]
    assert together.boxes_xyxy.tolist() == [one.boxes_xyxy[0].tolist() for one in single]


@pytest.mark.parametrize("columns_at_once", [20, 100, 5000])
def test_parts_of_the_columns_are_the_whole(columns_at_once: int) -> None:
    """Noise is cut into parts, so that memory is bounded."""
    geometry = geometry_of(120, 90, 256)
    cells = np.concatenate([make_logits(kind, 2, 64) for kind in ("noise", "stripes", "border")])
    sampling = sample_mask((64, 64), geometry)
    assert sampling is not None
    ranges = find_column_ranges(cells, sampling)
    parts = list(split_ranges(ranges, columns_at_once))
    longest = (ranges.stops - ranges.starts).max()
    for part in parts:
        assert (part.stops - part.starts).sum() <= columns_at_once + longest
    found = merge_transitions([find_transitions(cells, part, sampling) for part in parts])
    assert count_runs(found, 120).counts == encode(cells, geometry).counts


@EVERY_KIND
@pytest.mark.parametrize("original_hw", [(97, 131), (1, 1), (1, 70), (300, 40)])
def test_compiled_masks_are_the_same(original_hw: tuple[int, int], kind: str) -> None:
    """To the last character: the arithmetic is that of the NumPy form."""
    pytest.importorskip("numba")
    for side, model_size in ((256, 1024), (128, 512), (64, 64), (20, 70)):
        geometry = geometry_of(*original_hw, model_size)
        cells = make_logits(kind, 4, side, seed=7)
        expected = masks.encode_mask_logits(cells, geometry, mask_threshold=0.5)
        found = masks.encode_mask_logits(cells, geometry, mask_threshold=0.5, compiled=True)
        assert found.segmentations == expected.segmentations
        assert found.areas.tolist() == expected.areas.tolist()
        assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)


def test_compiled_masks_of_many_changes() -> None:
    """More than what is set aside at first."""
    pytest.importorskip("numba")
    geometry = geometry_of(400, 500, 1024)
    cells = make_logits("noise", 3, 256)
    sampling = sample_mask((256, 256), geometry)
    assert sampling is not None
    assert encode_cells(cells, sampling, compiled=True).counts == encode(cells, geometry).counts


def test_short_runs_do_not_wait_for_the_compiler() -> None:
    assert not is_compiling_worthwhile(1000)
    pytest.importorskip("numba")
    assert is_compiling_worthwhile(1_000_000)


def test_only_changes_are_computed() -> None:
    """The work grows with a mask's outline: no array is as large as the image."""
    geometry = geometry_of(3000, 4000)
    cells = make_logits("smooth", 4, 256)
    sampling = sample_mask((256, 256), geometry)
    assert sampling is not None
    ranges = find_column_ranges(cells, sampling)
    transitions = find_transitions(cells, ranges, sampling)
    num_columns = int((ranges.stops - ranges.starts).sum())
    assert num_columns <= 1.1 * len(transitions.positions) + 100 < 0.001 * 4 * 3000 * 4000


def test_threshold() -> None:
    geometry = geometry_of(77, 91, 256)
    cells = make_logits("wiggly", 5, 64)
    encoded = masks.encode_mask_logits(cells, geometry, mask_threshold=1.25)
    counts = tuple(rle["counts"] for rle in encoded.segmentations)
    check_masks(cells - 1.25, geometry, MaskCounts(counts, encoded.areas, encoded.boxes_xyxy))


STRINGS = {
    "rectangle": ((4, 5), [(slice(1, 3), slice(1, 4))], "5220003"),
    "empty": ((20, 30), [], "hb0"),
    "full": ((20, 30), [(slice(0, 20), slice(0, 30))], "0hb0"),
    "parts": (
        (20, 30),
        [(slice(2, 18), slice(3, 4)), (slice(5, 6), slice(4, 5)), (slice(0, 20), slice(10, 12))],
        "n1`07A[3W1f7",
    ),
}


@pytest.mark.parametrize(("hw", "parts", "counts"), STRINGS.values(), ids=STRINGS.keys())
def test_strings(hw: tuple[int, int], parts: list[tuple[slice, slice]], counts: str) -> None:
    """Cells that are pixels: the mask is what was set."""
    cells = np.full((1, max(hw), max(hw)), -1, np.float32)
    for part in parts:
        cells[0][part] = 1
    assert encode(cells, ImageGeometry(hw, hw, max(hw))).counts == (counts,)
