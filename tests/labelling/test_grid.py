"""Grid points, and one mask for each object: against plain dense computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from result_builders import random_masks

from ovsam_cli import masks
from ovsam_cli.labelling.crops import Crop
from ovsam_cli.labelling.grid import (
    DistinctOptions,
    find_good,
    keep_distinct,
    prompts_from_grid,
)
from ovsam_cli.labelling.grid_masks import GridMasks, measure_masks
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.structures import ImageGeometry

HW = (96, 128)  # original pixels; 2 a low-resolution cell, no padding below
GEOMETRY = ImageGeometry(original_hw=HW, input_hw=(192, 256), model_size=256)
WHOLE = Crop((0, 0, 128, 96), 0, 32)


def measure_logits(logits: np.ndarray | torch.Tensor, ious: np.ndarray | None = None) -> GridMasks:
    """(N, 64, 64) logits in the padded model frame."""
    decoded = DecodedMasks(
        torch.as_tensor(logits, dtype=torch.float32)[:, None],
        None if ious is None else torch.as_tensor(ious, dtype=torch.float32)[:, None],
    )
    return measure_masks(decoded, GEOMETRY)


def measure(
    dense: np.ndarray, logit: np.ndarray | float = 5.0, ious: np.ndarray | None = None
) -> GridMasks:
    """Masks (N, 48, 64) as logits of the given size, padded to 64 x 64."""
    logits = np.where(dense, 1.0, -1.0) * np.reshape(logit, (-1, 1, 1))
    padded = np.pad(logits, [(0, 0), (0, 16), (0, 0)], constant_values=9.0)  # padding is ignored
    return measure_logits(padded, ious)


def keep(found: GridMasks, crop: Crop = WHOLE, original_hw=HW, **options):
    return keep_distinct(found, GEOMETRY, crop, original_hw, DistinctOptions(**options))


def rectangle(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize("points_per_side", [1, 2, 5])
def test_points_lie_in_the_middle_of_even_cells(points_per_side):
    prompts = prompts_from_grid((30, 50), points_per_side=points_per_side, first_prompt_id=7)
    assert prompts.prompt_ids == tuple(range(7, 7 + points_per_side**2))
    assert (prompts.point_labels == 1).all() and not prompts.has_box.any()
    expected = [
        ((column + 0.5) * 50 / points_per_side, (row + 0.5) * 30 / points_per_side)
        for row in range(points_per_side)
        for column in range(points_per_side)
    ]
    np.testing.assert_allclose(prompts.point_coords[:, 0], expected, rtol=1e-6)


def test_measures_equal_plain_ones():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20, 64, 64)).astype(np.float32)
    logits[3] = -1.5
    logits[4, :, 40:] = -2
    found = measure_logits(logits)
    inside = logits[:, :48]
    for row in range(20):
        ys, xs = np.nonzero(inside[row] > 0)
        assert found.areas[row] == len(ys)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0, 0, 0, 0]
        assert found.boxes_xyxy[row].tolist() == box
        unpacked = np.unpackbits(found.bits[row].view(np.uint8))[: 48 * 64].reshape(48, 64)
        np.testing.assert_array_equal(unpacked.astype(bool), inside[row] > 0)
    np.testing.assert_allclose(
        found.stability_scores, masks.compute_stability_scores(inside), rtol=1e-6
    )


def test_chunks_join_to_the_whole():
    dense = random_masks(np.random.default_rng(1), 9, (48, 64))
    joined = GridMasks.concatenate([measure(dense[:4]), measure(dense[4:])])
    whole = measure(dense)
    np.testing.assert_array_equal(joined.bits, whole.bits)
    assert keep(joined).rows.tolist() == keep(whole).rows.tolist()


def test_number_of_cells_that_fills_no_whole_word():
    """Rows of 38 cells end within a byte, 63 of them within a word; the rest must not count."""
    geometry = ImageGeometry(original_hw=(63, 38), input_hw=(252, 152), model_size=256)
    logits = torch.full((2, 1, 64, 64), 9.0)
    logits[1, 0, 10:, 37:] = -9.0
    found = measure_masks(DecodedMasks(logits, None), geometry)
    assert found.hw == (63, 38)
    areas = [63 * 38, 63 * 38 - 53]
    assert np.bitwise_count(found.bits).sum(axis=1).tolist() == found.areas.tolist() == areas
    assert found.boxes_xyxy.tolist() == [[0, 0, 38, 63]] * 2
    np.testing.assert_allclose(found.stability_scores, 1)


def plain_greedy(dense: np.ndarray, order: np.ndarray, options: DistinctOptions) -> list[int]:
    kept: list[int] = []
    for row in order:
        for other in kept:
            shared = (dense[row] & dense[other]).sum()
            small, large = sorted((dense[row].sum(), dense[other].sum()))
            iou = shared / (dense[row] | dense[other]).sum()
            if iou > options.max_iou:
                break
            if shared > options.max_containment * small and small >= options.similar_area * large:
                break
        else:
            kept.append(int(row))
    return kept


@pytest.mark.parametrize("max_iou", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_duplicates_are_those_of_the_plain_rule(max_iou, seed):
    generator = np.random.default_rng(seed)
    objects = random_masks(generator, 12, (48, 64))
    dense = np.stack([np.roll(objects[row % 12], row % 3, axis=row % 2) for row in range(150)])
    dense = dense & (generator.uniform(size=dense.shape) > 0.02)
    dense = dense[dense.any(axis=(1, 2))]
    logits = generator.choice([0.5, 2.0, 5.0], len(dense))  # ties, and masks of stability 0
    found = measure(dense, logits)
    options = DistinctOptions(min_stability=0.0, max_iou=max_iou, max_image_share=1.0)
    kept = keep_distinct(found, GEOMETRY, WHOLE, HW, options)
    order = np.argsort(-found.stability_scores, kind="stable")
    assert kept.rows.tolist() == plain_greedy(dense, order, options)
    assert kept.num_dropped["duplicate"] == len(dense) - len(kept.rows)


def test_parts_stay_and_near_copies_go():
    car, wheel = rectangle(5, 5, 35, 55), rectangle(25, 10, 35, 20)
    inner_copy = rectangle(6, 8, 34, 50)  # IoU 0.78
    shrunk = rectangle(7, 10, 33, 48)  # IoU 0.66, but wholly inside and of similar size
    kept = keep(measure(np.stack([car, wheel, inner_copy, shrunk])))
    assert kept.rows.tolist() == [0, 1]
    assert kept.num_dropped == {"duplicate": 2}
    assert keep(measure(np.stack([car, shrunk])), similar_area=0.8).rows.tolist() == [0, 1]


def test_more_stable_copy_stays():
    dense = np.stack([rectangle(5, 5, 20, 20), rectangle(5, 5, 20, 21), rectangle(5, 5, 20, 20)])
    logits = np.full((3, 64, 64), -5.0, np.float32)
    logits[:, :48][dense] = 5
    logits[0, 5, 5:9] = 0.5  # a few undecided cells
    found = measure_logits(logits)
    assert keep(found).rows.tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_predicted_iou_decides_among_duplicates_where_there_is_one(seed):
    generator = np.random.default_rng(seed)
    objects = random_masks(generator, 6, (48, 64))
    dense = np.stack([np.roll(objects[row % 6], row % 3, axis=row % 2) for row in range(60)])
    ious = generator.permutation(60) / 60
    logits = generator.choice([2.0, 5.0], 60)  # stability would order otherwise
    options = DistinctOptions(min_stability=0.0, max_image_share=1.0)
    kept = keep_distinct(measure(dense, logits, ious), GEOMETRY, WHOLE, HW, options)
    assert kept.rows.tolist() == plain_greedy(dense, np.argsort(-ious, kind="stable"), options)


def test_low_predicted_iou_is_dropped_before_the_rest():
    at = [rectangle(3, 3, 9, 9), rectangle(20, 20, 30, 30), rectangle(20, 40, 30, 50)]
    ious, options = np.array([0.87, 0.9, np.nan]), DistinctOptions(min_predicted_iou=0.88)
    found = measure(np.stack(at), ious=ious)
    assert find_good(found, options).tolist() == [1]
    kept = keep_distinct(found, GEOMETRY, WHOLE, HW, options)
    assert kept.rows.tolist() == [1] and kept.num_dropped == {"low_predicted_iou": 2}
    without = measure(np.stack(at))
    assert find_good(without, options).tolist() == [0, 1, 2]
    assert len(keep_distinct(without, GEOMETRY, WHOLE, HW, options).rows) == 3


def test_predicted_iou_goes_with_its_mask():
    dense, ious = random_masks(np.random.default_rng(1), 5, (48, 64)), np.arange(5) / 5
    found = measure(dense, ious=ious)
    joined = GridMasks.concatenate([found.take(np.array([3])), found.take(np.array([], int))])
    assert joined.iou_predictions.tolist() == pytest.approx([0.6])


def test_reasons_are_counted():
    empty, frame, dot = np.zeros((48, 64), bool), np.ones((48, 64), bool), rectangle(3, 3, 9, 9)
    dense = np.stack([empty, frame, dot, dot, rectangle(20, 20, 30, 30)])
    kept = keep(measure(dense, np.array([5, 5, 5, 5, 0.5])))
    assert kept.rows.tolist() == [2]
    assert kept.num_dropped == {
        "empty_mask": 1, "whole_image": 1, "duplicate": 1, "low_stability": 1,
    }  # fmt: skip


def test_masks_cut_by_their_crop_are_left_to_its_neighbor():
    """The crop is the left half of an image: only its right edge cuts objects."""
    crop = Crop((0, 0, 128, 96), 1, 16)
    at = [rectangle(10, 54, 20, 64), rectangle(10, 0, 20, 12), rectangle(0, 20, 12, 30),
          rectangle(36, 36, 48, 44), rectangle(10, 40, 20, 53)]  # fmt: skip
    kept = keep(measure(np.stack(at)), crop, original_hw=(96, 256))
    assert kept.rows.tolist() == [1, 2, 3, 4]
    assert kept.num_dropped == {"cut_by_crop": 1}
    assert len(keep(measure(np.stack(at)), WHOLE).rows) == 5


def test_nothing_found():
    kept = keep(measure(np.zeros((3, 48, 64), bool)))
    assert kept.rows.tolist() == [] and kept.num_dropped == {"empty_mask": 3}
    kept = keep(measure(np.zeros((0, 48, 64), bool)))
    assert kept.rows.tolist() == [] and kept.num_dropped == {}
