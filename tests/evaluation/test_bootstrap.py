"""Confidence intervals over images: closed forms, and the width theory asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ovsam_cli.evaluation.bootstrap import estimate_mean


def test_equal_values_are_certain() -> None:
    found = estimate_mean(np.full(6, 0.5, np.float32), np.asarray([0, 0, 1, 1, 2, 3]))
    assert (found.mean, found.low, found.high, found.num_instances) == (0.5, 0.5, 0.5, 6)


def test_one_image_has_no_interval() -> None:
    """Objects of one image are drawn together, so there is nothing to vary, and nothing to say."""
    found = estimate_mean(np.asarray([0, 1, 1, 0], np.float32), np.zeros(4, np.int64))
    assert found.mean == 0.5 and math.isnan(found.low) and math.isnan(found.high)


def test_all_wrong_is_not_certain() -> None:
    """Wilson's 95 % interval for none of 22 ends at 14.87 %."""
    found = estimate_mean(np.zeros(22, np.float32), np.arange(22))
    assert (found.mean, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.14866, abs=1e-5)


def test_two_images_give_three_means() -> None:
    """Of the pairs drawn a quarter is all 0 and a quarter all 1: the interval is everything."""
    found = estimate_mean(np.asarray([0, 1], np.float32), np.asarray([7, 9]))
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_width_of_independent_values() -> None:
    """One object an image: mean +- 1.96 standard errors, as the central limit has it."""
    values = np.random.default_rng(2).random(400).astype(np.float32)
    found = estimate_mean(values, np.arange(400), num_resamples=4000)
    half = 1.96 * float(values.std()) / 20
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_alike_objects_widen_the_interval() -> None:
    """Sixteen equal objects an image tell no more than one: 4 times the width of free ones."""
    values = np.repeat(np.random.default_rng(3).random(50), 16).astype(np.float32)
    clustered = estimate_mean(values, np.repeat(np.arange(50), 16))
    free = estimate_mean(values, np.arange(800))
    ratio = (clustered.high - clustered.low) / (free.high - free.low)
    assert ratio == pytest.approx(4, rel=0.15)


def test_images_count_by_their_objects() -> None:
    """The mean is over objects, also where images have different numbers of them."""
    values, images = np.asarray([1, 0, 0, 0], np.float32), np.asarray([3, 5, 5, 5])
    assert estimate_mean(values, images).mean == 0.25


def test_seeded() -> None:
    values = np.random.default_rng(4).random(30).astype(np.float32)
    images = np.arange(30) // 3
    assert estimate_mean(values, images) == estimate_mean(values, images)
    assert estimate_mean(values, images) != estimate_mean(values, images, seed=1)


def test_without_objects() -> None:
    found = estimate_mean(np.empty(0, np.float32), np.empty(0, np.int64))
    assert math.isnan(found.mean) and math.isnan(found.low) and math.isnan(found.high)
    assert found.num_instances == 0


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="images"):
        estimate_mean(np.zeros(2, np.float32), np.zeros(3, np.int64))
