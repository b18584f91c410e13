"""Calibration error against closed forms and against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ovsam_cli.evaluation.calibration import compute_calibration


def test_scores_that_mean_what_they_say() -> None:
    """Of ten objects scored 0.7 seven are right."""
    found = compute_calibration(np.full(10, 0.7, np.float32), np.arange(10) < 7)
    assert found.error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("score", [0.0, 0.25, 0.5, 1.0])
def test_one_score_for_all(score: float) -> None:
    """The error is the distance between the score and the share that is right."""
    found = compute_calibration(np.full(8, score, np.float32), np.arange(8) < 6)
    assert found.error == pytest.approx(abs(score - 0.75), abs=1e-6)
    assert found.counts.sum() == found.counts.max() == 8


def test_bins_are_weighed_by_their_objects() -> None:
    """Three sure and right objects: error 0; one of 0.5 that is wrong: 0.5, a quarter of all."""
    scores, is_right = np.asarray([1, 1, 1, 0.5], np.float32), np.asarray([True, True, True, False])
    found = compute_calibration(scores, is_right)
    assert found.error == pytest.approx(0.125)
    assert found.counts.tolist() == [0] * 7 + [1] + [0] * 6 + [3]
    assert found.mean_scores[[7, 14]].tolist() == [0.5, 1.0]
    assert found.shares_right[[7, 14]].tolist() == [0.0, 1.0]
    assert np.isnan(found.mean_scores[0])


def test_opposite_errors_of_one_bin_cancel() -> None:
    """In one bin 0.2 right and 0.8 wrong look calibrated; that is the measure's weakness."""
    scores, is_right = np.asarray([0.2, 0.8], np.float32), np.asarray([True, False])
    assert compute_calibration(scores, is_right, num_bins=1).error == pytest.approx(0, abs=1e-6)
    assert compute_calibration(scores, is_right, num_bins=2).error == pytest.approx(0.8)


def test_edges_belong_to_the_lower_bin() -> None:
    scores = np.asarray([0.0, 0.25, 0.2501, 0.5, 0.75, 1.0], np.float32)
    found = compute_calibration(scores, np.zeros(6, bool), num_bins=4)
    assert found.counts.tolist() == [2, 2, 1, 1]


def test_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    scores, is_right = rng.random(500).astype(np.float32), rng.random(500) < 0.4
    expected = 0.0
    for number in range(15):
        inside = (scores > number / 15) & (scores <= (number + 1) / 15)
        if inside.any():
            gap = abs(is_right[inside].mean() - scores[inside].mean())
            expected += gap * inside.mean()
    assert compute_calibration(scores, is_right).error == pytest.approx(expected, abs=1e-6)


def test_without_objects() -> None:
    found = compute_calibration(np.empty(0, np.float32), np.empty(0, bool))
    assert math.isnan(found.error)
    assert not found.counts.any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="scores"):
        compute_calibration(np.zeros(2, np.float32), np.zeros(3, bool))
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        compute_calibration(np.asarray([1.5], np.float32), np.zeros(1, bool))
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        compute_calibration(np.asarray([np.nan], np.float32), np.zeros(1, bool))
