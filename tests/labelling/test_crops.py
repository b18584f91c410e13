"""Crops cover the image, their objects return to its frame, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from result_builders import make_detections

from ovsam_cli import masks
from ovsam_cli.labelling.crops import Crop, make_crops, merge_crops, uncrop_detections
from ovsam_cli.labelling.options import GridOptions, LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.structures import Detections, ImageRecord
from ovsam_cli.vocabulary import Category, Vocabulary

# pycocotools 2.0 has not followed numpy 2's rule for __array__ yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def detections_of(*dense: np.ndarray, stability: float = 0.9):
    rles = tuple(masks.encode_mask(mask) for mask in dense)
    found = make_detections(len(dense), hw=dense[0].shape)
    return replace(
        found,
        segmentations=rles,
        areas=masks.mask_areas(rles),
        boxes_xyxy=masks.mask_boxes(rles),
        stability_scores=np.full(len(dense), stability, np.float32),
    )


@pytest.mark.parametrize("hw", [(480, 640), (640, 480), (97, 1201), (5, 5), (1, 1)])
@pytest.mark.parametrize("crop_layers", [0, 1, 2])
def test_crops_cover_the_image_and_stay_inside(hw, crop_layers):
    crops = make_crops(hw, points_per_side=32, crop_layers=crop_layers)
    assert crops[0] == Crop((0, 0, hw[1], hw[0]), 0, 32)
    for layer in range(1, crop_layers + 1):
        seen = np.zeros(hw, int)
        for crop in crops:
            x0, y0, x1, y1 = crop.box_xyxy
            assert 0 <= x0 < x1 <= hw[1] and 0 <= y0 < y1 <= hw[0]
            if crop.layer == layer:
                seen[y0:y1, x0:x1] += 1
                assert crop.points_per_side == 32 // 2**layer
        if min(hw) > 10:
            assert seen.min() == 1 and seen.max() <= 4
            assert len({crop.hw for crop in crops if crop.layer == layer}) <= 4


def test_overlap_of_the_published_generator():
    """480 x 640, one layer: the overlap is int(512 / 1500 * 480) = 163 pixels."""
    crops = make_crops((480, 640), points_per_side=32, crop_layers=1)
    assert [crop.box_xyxy for crop in crops[1:]] == [
        (0, 0, 402, 322), (239, 0, 640, 322), (0, 159, 402, 480), (239, 159, 640, 480),
    ]  # fmt: skip


def test_objects_return_to_the_image():
    crop = Crop((30, 20, 94, 68), 1, 16)
    found = make_detections(4, hw=crop.hw)
    moved = uncrop_detections(found, crop, (100, 120))
    for row in range(4):
        dense = masks.decode_mask(moved.segmentations[row])
        assert dense.shape == (100, 120)
        np.testing.assert_array_equal(
            dense[20:68, 30:94], masks.decode_mask(found.segmentations[row])
        )
        assert dense.sum() == moved.areas[row] == found.areas[row]
    np.testing.assert_array_equal(moved.boxes_xyxy, masks.mask_boxes(moved.segmentations))
    np.testing.assert_allclose(
        moved.prompts.point_coords - found.prompts.point_coords,
        np.broadcast_to([30, 20], (4, 2, 2)),
        atol=1e-4,
    )
    np.testing.assert_array_equal(moved.prompts.has_box, found.prompts.has_box)


def test_deeper_layer_then_stability_decides_and_each_object_stays_once():
    first, second = np.zeros((2, 40, 60), bool)
    first[5:15, 5:25] = True
    second[20:35, 30:50] = True
    copy = first.copy()
    copy[5, 5:9] = False
    whole = detections_of(first, second, stability=0.99)
    weak, strong = detections_of(copy, stability=0.8), detections_of(copy, stability=0.95)
    layers = [Crop((0, 0, 60, 40), 0, 32), Crop((0, 0, 30, 40), 1, 16)]
    merged = merge_crops([(layers[0], whole), (layers[1], weak), (layers[1], strong)])
    assert merged.stability_scores.tolist() == pytest.approx([0.95, 0.99])
    assert merged.segmentations == (strong.segmentations[0], whole.segmentations[1])


def test_predicted_iou_then_decides_where_there_is_one():
    first = np.zeros((40, 60), bool)
    first[5:15, 5:25] = True
    ious = np.array([0.5], np.float32)
    stable = replace(detections_of(first, stability=0.99), iou_predictions=ious)
    good = replace(detections_of(first, stability=0.8), iou_predictions=ious + 0.4)
    crop = Crop((0, 0, 60, 40), 0, 32)
    merged = merge_crops([(crop, stable), (crop, Detections.empty()), (crop, good)])
    assert merged.iou_predictions.tolist() == pytest.approx([0.9])
    assert merged.stability_scores.tolist() == pytest.approx([0.8])


def test_crops_without_objects():
    nothing = make_detections(0)
    crop = Crop((0, 0, 64, 48), 0, 32)
    assert len(merge_crops([(crop, nothing)])) == 0
    assert len(merge_crops([(crop, nothing), (crop, make_detections(1))])) == 1


@pytest.mark.parametrize("crop_layers", [0, 1, 3])
@pytest.mark.parametrize("points_per_side", [32, 5])
def test_a_plan_counts_crops_and_their_points(points_per_side, crop_layers):
    """Whether compiling is worth it depends on them."""
    grid = GridOptions(points_per_side=points_per_side, crop_layers=crop_layers)
    request = LabelRequest(
        images=("a",), vocabulary="pets", out=Path("out"), options=LabelOptions(grid=grid)
    )
    vocabulary = Vocabulary("pets", (Category(1, "cat", ("cat",)),))
    records = tuple(ImageRecord(Path(f"{n}.jpg"), f"{n}.jpg", n) for n in (1, 2))
    plan = RunPlan(request, records, vocabulary, None, None, ())
    crops = make_crops((480, 640), points_per_side=points_per_side, crop_layers=crop_layers)
    assert plan.num_views == 2 * len(crops)
    assert plan.num_prompts == 2 * sum(crop.points_per_side**2 for crop in crops)
