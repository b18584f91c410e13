"""The IoU that `tiny` tells from a mask's own logits, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ovsam_cli.model.tiny_quality import (
    BOX_LINE,
    POINT_LINE,
    choose_surest,
    estimate_iou,
    mean_probability,
)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_mean_probability_is_that_of_the_cells_inside() -> None:
    """(.9 + .6) / 2; what lies outside does not count, and an empty mask is worth nothing."""
    logits = torch.tensor([[logit(0.9), logit(0.6), logit(0.4), -50.0], [-1.0, -2.0, 0.0, -3.0]])
    torch.testing.assert_close(mean_probability(logits), torch.tensor([0.75, 0.0]))


def test_large_masks_of_half_precision_are_summed_in_float32() -> None:
    logits = torch.full((1, 256 * 256), logit(0.8)).bfloat16()
    assert float(mean_probability(logits)) == pytest.approx(0.8, abs=0.005)


def test_estimate_is_a_line_each_for_boxes_and_lone_points() -> None:
    logits = torch.full((3, 1, 2, 2), logit(0.8))
    logits[2] = -5.0
    found = estimate_iou(logits, torch.tensor([False, True, True]))
    expected = [0.8 * BOX_LINE[0] + BOX_LINE[1], 0.8 * POINT_LINE[0] + POINT_LINE[1], 0.0]
    torch.testing.assert_close(found, torch.tensor(expected)[:, None])


def test_estimate_stays_within_0_and_1() -> None:
    logits = torch.stack([torch.full((1, 2, 2), 30.0), torch.full((1, 2, 2), 0.01)])
    found = estimate_iou(logits, torch.tensor([True, True]))
    assert 0.0 <= float(found.min()) and float(found.max()) <= 1.0


def test_only_lone_points_choose_and_the_surest_wins() -> None:
    """The surest is not the largest: mask 2 has one sure cell, mask 1 three doubtful ones."""
    masks = torch.tensor([[9.0, 9, 9, 9], [0.5, 0.5, 0.5, -1], [-9, 4, -9, -9], [-9, -9, -9, -9]])
    logits = masks.expand(2, -1, -1)
    assert choose_surest(logits, torch.tensor([True, False])).tolist() == [2, 0]


def test_a_model_of_one_mask_has_nothing_to_choose() -> None:
    assert choose_surest(torch.ones(2, 1, 4), torch.tensor([True, False])).tolist() == [0, 0]
