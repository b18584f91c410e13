"""Scores: the published metric on recorded masks, and hand-counted cases."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask
from golden.recipe import uniform_for

from ovsam_cli.evaluation.metrics import compute_ious, summarize_masks, summarize_names
from ovsam_cli.masks import encode_mask
from ovsam_cli.structures import Rle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "extras.json").read_text())["metric"]


def draw_recorded(image: int) -> tuple[list[Rle], list[Rle]]:
    """Predicted and true masks of one image of the recording."""
    spec = GOLDEN["spec"][image]
    shape = (len(spec["labels"]), spec["h"], spec["w"])
    truth = uniform_for(f"metric.gt.{image}", math.prod(shape)).reshape(shape) < 0
    found = uniform_for(f"metric.pred.{image}", math.prod(shape)).reshape(shape) < 0.2
    if image == 2:
        truth[0] = found[0] = False
    return [encode_mask(mask) for mask in found], [encode_mask(mask) for mask in truth]


def test_recorded_ious() -> None:
    for image, recorded in enumerate(GOLDEN["iou"]):
        np.testing.assert_allclose(compute_ious(*draw_recorded(image)), recorded, atol=1e-6)


@pytest.mark.parametrize("part", ["", "base_", "novel_"])
def test_recorded_result(part: str) -> None:
    """All instances pooled, not averaged by class or image."""
    spec, result = GOLDEN["spec"], GOLDEN["result"]
    ious = np.concatenate([compute_ious(*draw_recorded(image)) for image in range(len(spec))])
    labels = np.asarray([label for image in spec for label in image["labels"]])
    predicted = np.asarray([label for image in spec for label in image["pred"]])
    kept = np.isin(labels, GOLDEN[part[:-1]]) if part else np.ones(len(labels), bool)
    areas = np.ones(int(kept.sum()), np.int64)
    miou = summarize_masks(ious[kept], areas).miou
    assert miou == pytest.approx(result[f"{part}iou" if part else "miou"], abs=1e-6)
    names = summarize_names((labels != predicted)[kept].astype(np.int64))
    assert 100 * names.top1 == pytest.approx(result[f"{part}score"], abs=1e-4)


def test_ious_of_hand_made_masks() -> None:
    left, right, none = np.zeros((3, 4, 6), bool)
    left[:, :4] = True  # 16 pixels
    right[:, 2:] = True  # 16 pixels, 8 shared
    found = [encode_mask(mask) for mask in (left, left, left, none)]
    truth = [encode_mask(mask) for mask in (left, right, none, none)]
    np.testing.assert_allclose(compute_ious(found, truth), [1, 1 / 3, 0, 0], atol=1e-7)


def test_ious_against_numpy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 5, 13, 17)) < 0.4
    expected = (one & other).sum((1, 2)) / (one | other).sum((1, 2))
    found = compute_ious([encode_mask(m) for m in one], [encode_mask(m) for m in other])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ious_need_pairs() -> None:
    mask = encode_mask(disc_mask())
    with pytest.raises(ValueError, match="longer"):
        compute_ious([mask], [mask, mask])


def test_area_classes_have_the_limits_of_coco() -> None:
    areas = np.asarray([32**2 - 1, 32**2, 96**2 - 1, 96**2], np.int64)
    scores = summarize_masks(np.asarray([0.1, 0.2, 0.4, 0.8], np.float32), areas)
    assert scores.small == pytest.approx(0.1)
    assert scores.medium == pytest.approx(0.3)
    assert scores.large == pytest.approx(0.8)
    assert scores.miou == pytest.approx(0.375)
    assert scores.num_instances == 4


def test_no_instances_score_nan() -> None:
    masks = summarize_masks(np.empty(0, np.float32), np.empty(0, np.int64))
    names = summarize_names(np.empty(0, np.int64))
    values = (masks.miou, masks.small, masks.medium, masks.large, names.top1, names.top5)
    assert all(math.isnan(value) for value in values)
    assert masks.num_instances == names.num_instances == 0


def test_ranks() -> None:
    scores = summarize_names(np.asarray([0, 0, 1, 4, 5, 70], np.int64))
    assert scores.top1 == pytest.approx(2 / 6)
    assert scores.top5 == pytest.approx(4 / 6)
    assert scores.num_instances == 6
