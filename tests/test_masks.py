"""Masks against dense computations, torch and pycocotools."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import disc_mask
from pycocotools import mask as coco_mask

from ovsam_cli import masks
from ovsam_cli.outlines import trace_outlines
from ovsam_cli.raster import build_bilinear_matrix
from ovsam_cli.run_lengths import format_counts, parse_counts, read_segmentation
from ovsam_cli.structures import ImageGeometry, Rle

SHAPES = {
    "empty": np.zeros((20, 30), bool),
    "full": np.ones((20, 30), bool),
    "one_pixel": disc_mask(20, 30, center_yx=(0, 29), radius=0.5),
    "disc": disc_mask(20, 30, center_yx=(9, 14), radius=6),
    "cut_disc": disc_mask(20, 30, center_yx=(2, 28), radius=9),
    "two_parts": disc_mask(20, 30, center_yx=(5, 5), radius=3)
    | disc_mask(20, 30, center_yx=(14, 22), radius=4),
    "diagonal": np.eye(12, dtype=bool),
    "antidiagonal": np.eye(12, dtype=bool)[::-1].copy(),
    "checker": np.indices((9, 9)).sum(axis=0) % 2 == 0,
    "one_row": np.ones((1, 7), bool),
    "one_by_one": np.ones((1, 1), bool),
    "sparse": np.random.default_rng(1).random((40, 50)) < 0.1,
    "half": np.random.default_rng(2).random((40, 50)) < 0.5,
    "dense": np.random.default_rng(3).random((40, 50)) < 0.9,
}
each_shape = pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES.keys())


def smooth_logits(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    """(count, side, side) float32 blobs with rough edges, some cells above 0."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    centers = generator.uniform(0.1 * side, 0.6 * side, (count, 2, 1, 1))
    distance = np.hypot(y - centers[:, 0], x - centers[:, 1])
    logits = generator.uniform(2, side / 4, (count, 1, 1)) - distance
    return (logits.clip(-15, 15) + generator.normal(0, 1, logits.shape)).astype(np.float32)


# --- run lengths


def decode_with_pycocotools(rle: Rle) -> np.ndarray:
    with warnings.catch_warnings():  # it relies on a protocol that numpy 2 deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco_mask.decode(rle).astype(bool)


@each_shape
def test_round_trip(mask: np.ndarray) -> None:
    rle = masks.encode_mask(mask)
    assert json.loads(json.dumps(rle)) == rle
    decoded = masks.decode_mask(rle)
    assert decoded.dtype == bool and np.array_equal(decoded, mask)
    assert np.array_equal(decode_with_pycocotools(rle), mask)


@each_shape
def test_counts_are_read_and_written_as_pycocotools_does(mask: np.ndarray) -> None:
    counts = masks.encode_mask(mask)["counts"]
    runs = parse_counts(counts)
    assert runs[::2].sum() == (~mask).sum() and runs[1::2].sum() == mask.sum()
    assert format_counts(runs.tolist()) == counts


@pytest.mark.parametrize("shape", [(5, 3), (1, 1), (700, 900)])
def test_counts_of_random_masks(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for share in (0.001, 0.5, 0.999):
        mask = generator.random(shape) < share
        rle = masks.encode_mask(mask)
        assert np.array_equal(masks.decode_mask(rle), mask)
        assert format_counts(parse_counts(rle["counts"]).tolist()) == rle["counts"]
        uncompressed = {"size": list(shape), "counts": parse_counts(rle["counts"]).tolist()}
        assert read_segmentation(uncompressed) == read_segmentation(rle) == rle


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"size": [2, 2]},
        {"size": [2], "counts": "4"},
        {"size": [2.0, 2], "counts": "4"},
        {"size": [2, 2], "counts": 4},
        {"size": [2, 2], "counts": "5"},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [0, 0], "counts": []},
        {"size": [2, 2], "counts": "\x7f"},
        {"size": [2, 2], "counts": "\u00e9"},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "P" * 40 + "0"},
    ],
)
def test_broken_run_lengths_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="mask"):
        read_segmentation(value)


@each_shape
def test_area_and_box(mask: np.ndarray) -> None:
    rle = masks.encode_mask(mask)
    assert masks.mask_areas([rle]).tolist() == [mask.sum()]
    expected = [0.0, 0.0, 0.0, 0.0]
    if mask.any():
        ys, xs = np.nonzero(mask)
        expected = [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
    assert masks.mask_boxes([rle])[0].tolist() == expected


def test_no_masks() -> None:
    assert masks.mask_areas([]).shape == (0,) and masks.mask_boxes([]).shape == (0, 4)
    assert masks.mask_iou([], [masks.encode_mask(np.eye(3, dtype=bool))]).shape == (0, 1)
    encoded = masks.encode_mask_logits(
        np.zeros((0, 8, 8), np.float32), ImageGeometry((10, 10), (32, 32), 32)
    )
    assert len(encoded) == 0 and encoded.boxes_xyxy.shape == (0, 4)


def test_overlaps_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    dense = [generator.random((20, 30)) < share for share in (0.0, 0.1, 0.5, 1.0)]
    dense += [disc_mask(20, 30, center_yx=(10, 10 + step), radius=6) for step in range(3)]
    rles = [masks.encode_mask(mask) for mask in dense]
    iou, containment = masks.mask_iou(rles, rles), masks.mask_containment(rles, rles)
    for i, left in enumerate(dense):
        for j, right in enumerate(dense):
            both = (left & right).sum()
            assert iou[i, j] == pytest.approx(both / max((left | right).sum(), 1))
            assert containment[i, j] == pytest.approx(both / max(left.sum(), 1))


def test_merge_is_the_union() -> None:
    parts = [SHAPES["disc"], SHAPES["cut_disc"], SHAPES["empty"]]
    merged = masks.merge_masks([masks.encode_mask(part) for part in parts])
    assert np.array_equal(masks.decode_mask(merged), parts[0] | parts[1])


def test_box_formats() -> None:
    boxes = np.array([[1, 2, 4, 8], [0, 0, 0, 0]], np.float32)
    assert masks.xyxy_to_xywh(boxes).tolist() == [[1, 2, 3, 6], [0, 0, 0, 0]]
    assert np.array_equal(masks.xywh_to_xyxy(masks.xyxy_to_xywh(boxes)), boxes)


# --- logits

GEOMETRIES = {
    "enlarged": ImageGeometry((480, 640), (192, 256), 256),
    "upright": ImageGeometry((200, 150), (256, 192), 256),
    "small": ImageGeometry((30, 40), (192, 256), 256),
    "model_size": ImageGeometry((256, 256), (256, 256), 256),
    "odd": ImageGeometry((333, 777), (110, 256), 256),
    "one_pixel": ImageGeometry((1, 1), (256, 256), 256),
    "one_row": ImageGeometry((1, 900), (1, 256), 256),
}
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())


def upscale_with_torch(mask_logits: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """The definition, word by word (spec section 4.3)."""
    size, (height, width) = geometry.model_size, geometry.input_hw
    full = F.interpolate(torch.from_numpy(mask_logits)[:, None], (size, size), mode="bilinear")
    full = F.interpolate(full[..., :height, :width], geometry.original_hw, mode="bilinear")
    return full[:, 0].numpy()


@each_geometry
def test_upscaling_is_torchs(geometry: ImageGeometry) -> None:
    mask_logits = smooth_logits(3)
    upscaled = masks.upscale_mask_logits(mask_logits, geometry)
    assert upscaled.dtype == np.float32
    expected = upscale_with_torch(mask_logits, geometry)
    np.testing.assert_allclose(upscaled, expected, rtol=0, atol=1e-5)
    one = masks.upscale_mask_logits(mask_logits[0], geometry)
    np.testing.assert_allclose(one, expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "out_size"), [(7, 3), (3, 7), (1, 5), (5, 1), (6, 6), (64, 1000)])
def test_bilinear_matrix_is_torchs(size: int, out_size: int) -> None:
    line = np.random.default_rng(0).normal(size=(1, 1, size)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(line), out_size, mode="linear")[0, 0].numpy()
    result = build_bilinear_matrix(size, out_size) @ line[0, 0]
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@each_geometry
@pytest.mark.parametrize("mask_threshold", [0.0, 1.5, -3.0])
def test_encoded_logits_are_the_dense_masks(geometry: ImageGeometry, mask_threshold: float) -> None:
    mask_logits = smooth_logits(4, seed=5)
    mask_logits[3] = -9  # never lit
    encoded = masks.encode_mask_logits(mask_logits, geometry, mask_threshold=mask_threshold)
    upscaled = upscale_with_torch(mask_logits, geometry)
    for row, rle in enumerate(encoded.segmentations):
        decoded, dense = masks.decode_mask(rle), upscaled[row] > mask_threshold
        doubtful = np.abs(upscaled[row] - mask_threshold) < 1e-5
        assert not ((decoded != dense) & ~doubtful).any()
    assert encoded.areas.tolist() == masks.mask_areas(encoded.segmentations).tolist()
    assert encoded.areas[3] == 0 and encoded.boxes_xyxy[3].tolist() == [0, 0, 0, 0]


def test_padding_does_not_matter() -> None:
    geometry = ImageGeometry((60, 120), (128, 256), 256)
    mask_logits = smooth_logits(1)
    changed = mask_logits.copy()
    changed[:, 34:] = 50  # beyond the last input row (32) and the one blended into it
    before, after = (
        masks.encode_mask_logits(logits, geometry).segmentations
        for logits in (mask_logits, changed)
    )
    assert before == after


def test_stability() -> None:
    logits = np.array([[[-5.0, 5.0]], [[-5.0, 0.5]], [[-5.0, -5.0]], [[0.5, 5.0]]], np.float32)
    scores = masks.compute_stability_scores(logits)
    assert scores.tolist() == [1.0, 0.0, 0.0, 0.5]  # an empty mask is 0, not 0/0


# --- outlines


def rasterize(polygons: tuple[tuple[float, ...], ...], hw: tuple[int, int]) -> np.ndarray:
    if not polygons:
        return np.zeros(hw, bool)
    parts = coco_mask.frPyObjects([list(polygon) for polygon in polygons], *hw)
    return decode_with_pycocotools(coco_mask.merge(parts))


def label_by_flooding(mask: np.ndarray, *, diagonal: bool) -> list[np.ndarray]:
    """Every connected region as its own mask, the slow way."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if diagonal else []
    left, regions = mask.copy(), []
    while left.any():
        stack = [tuple(np.argwhere(left)[0])]
        region = np.zeros_like(mask)
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                stack += [(y + dy, x + dx) for dy, dx in steps]
        regions.append(region)
    return regions


def reaches_edge(region: np.ndarray) -> bool:
    return bool(region[[0, -1]].any() or region[:, [0, -1]].any())


@each_shape
def test_outlines_lose_holes_only(mask: np.ndarray) -> None:
    found = masks.mask_to_polygons(masks.encode_mask(mask))
    holes = [r for r in label_by_flooding(~mask, diagonal=True) if not reaches_edge(r)]
    filled = np.logical_or.reduce([mask, *holes])
    assert found.num_holes == len(holes)
    assert len(found.polygons) == len(label_by_flooding(mask, diagonal=False))
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in found.polygons)
    assert np.array_equal(rasterize(found.polygons, mask.shape) | mask, filled)


@pytest.mark.parametrize("radius", [1, 3, 8, 30])
def test_outlines_of_small_discs_are_lossless(radius: int) -> None:
    """Outlines through pixel centers gave IoU 0.64 at 3 pixels, and segm AP 0.60."""
    mask = disc_mask(80, 90, center_yx=(40, 41), radius=radius)
    polygons = masks.mask_to_polygons(masks.encode_mask(mask)).polygons
    assert np.array_equal(rasterize(polygons, mask.shape), mask)


def test_outline_coordinates() -> None:
    """Along the pixels' edges, so pixel (2, 3) spans x 3..4, y 2..3."""
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    assert trace_outlines(mask).polygons == ((3.0, 2.0, 4.0, 2.0, 4.0, 3.0, 3.0, 3.0),)


def test_island_within_a_hole() -> None:
    mask = np.ones((9, 9), bool)
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    found = trace_outlines(mask)
    assert len(found.polygons) == 2 and found.num_holes == 1


# --- small regions


def clean_by_flooding(mask: np.ndarray, min_area: int) -> np.ndarray:
    for hole in label_by_flooding(~mask, diagonal=False):
        if hole.sum() < min_area and not reaches_edge(hole):
            mask = mask | hole
    islands = label_by_flooding(mask, diagonal=True)
    largest = max(islands, key=lambda island: island.sum(), default=mask)
    kept = [island for island in islands if island.sum() >= min_area or island is largest]
    return np.logical_or.reduce([np.zeros_like(mask), *kept])


@each_shape
@pytest.mark.parametrize("min_area", [0, 1, 2, 5, 30])
def test_small_regions(mask: np.ndarray, min_area: int) -> None:
    before = mask.copy()
    cleaned = masks.remove_small_regions(mask, min_area)
    if min_area:
        expected = clean_by_flooding(mask, min_area)
        assert cleaned.sum() == expected.sum()
        if mask.sum() > min_area:  # equal largest islands may differ in which one stays
            assert np.array_equal(cleaned, expected)
    else:
        assert np.array_equal(cleaned, mask)
    assert np.array_equal(mask, before)


def test_spiral_is_one_region() -> None:
    """Runs that meet only at the far end must still be joined."""
    spiral = np.zeros((31, 31), bool)
    y, x, dy, dx = 0, 0, 0, 1
    for length in [30, 30, 30, *(n for n in range(28, 0, -2) for _ in (0, 1))]:
        for _ in range(length):
            spiral[y, x] = True
            y, x = y + dy, x + dx
        dy, dx = dx, -dy
    assert len(label_by_flooding(spiral, diagonal=True)) == 1
    assert np.array_equal(masks.remove_small_regions(spiral, 50), spiral)
