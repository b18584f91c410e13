"""The compiled resize gives the plain one's numbers, which are OpenCV's."""

from __future__ import annotations

import numpy as np
import pytest

from ovsam_cli.raster import resize_bilinear

pytest.importorskip("numba")
CASES = [
    ((48, 64), (36, 48)),
    ((47, 63), (95, 128)),
    ((1, 500), (1, 64)),
    ((500, 1), (64, 1)),
    ((3, 2), (64, 43)),
    ((300, 200), (64, 43)),
    ((64, 64), (64, 64)),
    ((128, 96), (64, 48)),
    ((129, 96), (64, 48)),
    ((2, 2), (1, 1)),
]


@pytest.mark.parametrize(("hw", "output_hw"), CASES, ids=str)
def test_same_numbers(hw: tuple[int, int], output_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(hw[0] * 1000 + hw[1])
    noise = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
    extremes = rng.choice(np.array([0, 255], np.uint8), (*hw, 3))
    for rgb in (noise, extremes, noise[::-1, ::-1]):
        plain = resize_bilinear(rgb, output_hw)
        assert np.array_equal(resize_bilinear(rgb, output_hw, compiled=True), plain)


def test_random_sizes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        hw, output_hw = (tuple(rng.integers(1, 90, 2).tolist()) for _ in range(2))
        rgb = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
        rgb.flags.writeable = False  # as decoded images are
        plain = resize_bilinear(rgb, output_hw)
        assert np.array_equal(resize_bilinear(rgb, output_hw, compiled=True), plain)
