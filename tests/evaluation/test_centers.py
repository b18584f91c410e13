"""Center points: the published code's on eight shapes in three frames, and what must hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders import disc_mask

from ovsam_cli.evaluation.centers import compute_center_point, compute_depths

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "extras.json").read_text())
HEIGHT, WIDTH = 120, 160
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def draw(name: str) -> np.ndarray:
    """The recording's shapes by their names."""
    distance2 = (X - 80) ** 2 + (Y - 60) ** 2
    upright, foot = (X >= 10) & (X < 40), (Y >= 80) & (X >= 10) & (X < 120)
    shapes = {
        "disc r30 at (60,50)": (X - 60) ** 2 + (Y - 50) ** 2 <= 30**2,
        "rect x20..139 y70..109": (X >= 20) & (X <= 139) & (Y >= 70) & (Y <= 109),
        "L shape": (upright | foot) & (Y >= 10) & (Y < 110),
        "annulus 25..55 at (80,60)": (distance2 >= 25**2) & (distance2 <= 55**2),
        "single pixel (7,3)": (X == 7) & (Y == 3),
        "touching left edge half disc r40 at (0,60)": X**2 + (Y - 60) ** 2 <= 40**2,
        "whole image": X >= 0,
        "empty": X < 0,
    }
    return shapes[name]


@pytest.mark.parametrize("frame", GOLDEN["center_points"])
@pytest.mark.parametrize("name", GOLDEN["center_points"]["(96, 128)"])
def test_recorded_points(frame: str, name: str) -> None:
    mask = draw(name)
    if not frame.startswith("no rescale"):
        frame_hw = json.loads(frame.replace("(", "[").replace(")", "]"))
        scaled = F.interpolate(torch.from_numpy(mask)[None, None].float(), frame_hw, mode="nearest")
        mask = scaled[0, 0].numpy() > 0
    assert compute_center_point(mask) == tuple(GOLDEN["center_points"][frame][name])


def test_recorded_depths() -> None:
    depths = compute_depths(np.pad(draw("disc r30 at (60,50)"), 1))[1:-1, 1:-1]
    recorded = GOLDEN["center_dt_disc_row50"]  # of x from 28 on
    np.testing.assert_allclose(depths[50, 28 : 28 + len(recorded)], recorded, atol=1e-5)
    assert depths.max() == pytest.approx(GOLDEN["center_dt_max"], abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_center_of_a_blob_is_inside_and_moves_with_it(seed: int) -> None:
    """The mask is cropped to its box first: where it lies must not matter."""
    rng = np.random.default_rng(seed)
    blob = np.zeros((40, 50), bool)
    for _ in range(4):
        center = (float(rng.integers(8, 32)), float(rng.integers(8, 42)))
        blob |= disc_mask(40, 50, center_yx=center, radius=float(rng.uniform(1, 8)))
    x, y = compute_center_point(blob)
    assert blob[y, x]
    down, right = (int(shift) for shift in rng.integers(1, 30, 2))
    moved = np.pad(blob, ((down, 3), (right, 5)))
    assert compute_center_point(moved) == (x + right, y + down)
    whole = compute_depths(np.pad(blob, 1))[1:-1, 1:-1]
    assert np.unravel_index(whole.argmax(), whole.shape) == (y, x)


def test_first_in_row_order_wins() -> None:
    mask = np.zeros((9, 9), bool)
    mask[6, 1] = mask[2, 5] = mask[2, 7] = True
    assert compute_center_point(mask) == (5, 2)


def test_depth_is_zero_outside_only() -> None:
    mask = disc_mask()
    depths = compute_depths(mask)
    assert (depths[~mask] == 0).all()
    assert (depths[mask] > 0).all()
