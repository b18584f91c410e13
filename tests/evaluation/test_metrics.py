"""Pooling of IoUs and ranks, and the baselines."""

import numpy as np
import pytest

from ovsam_cli.evaluation.baselines import draw_baseline
from ovsam_cli.evaluation.metrics import compute_ious, summarize_masks, summarize_names
from ovsam_cli.masks import decode_mask, encode_mask


def test_masks_are_pooled_by_cocos_areas() -> None:
    ious = np.asarray([0.2, 0.4, 0.9], np.float32)
    scores = summarize_masks(ious, np.asarray([1023, 1024, 9216]))
    assert (scores.small, scores.medium, scores.large) == pytest.approx((0.2, 0.4, 0.9))
    assert scores.miou == pytest.approx(0.5)


def test_no_instances_have_no_mean() -> None:
    assert np.isnan(summarize_masks(np.empty(0, np.float32), np.empty(0, np.int64)).miou)


def test_names_count_ranks() -> None:
    scores = summarize_names(np.asarray([0, 4, 5, 9]))
    assert (scores.top1, scores.top5) == (0.25, 0.5)


def test_box_baseline_of_a_rectangle_is_the_rectangle() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:11, 6:21] = True
    truth = encode_mask(mask)
    assert compute_ious([draw_baseline(truth, "box")], [truth]).tolist() == [1.0]


def test_ellipse_baseline_fills_a_quarter_pi() -> None:
    mask = np.ones((200, 300), bool)
    ellipse = decode_mask(draw_baseline(encode_mask(mask), "ellipse"))
    assert ellipse.mean() == pytest.approx(np.pi / 4, abs=1e-3)
