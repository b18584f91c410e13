"""Points that stand for masks: against brute force, and the published code's recorded ones."""

import numpy as np
import pytest
from builders import disc_mask
from test_centers import GOLDEN, draw

from ovsam_cli.evaluation.clicks import (
    compute_squared_depths,
    draw_pixels,
    find_center,
    find_deepest_pixel,
)
from ovsam_cli.structures import ImageGeometry


@pytest.mark.parametrize("seed", range(8))
def test_exact_distances(seed: int) -> None:
    """Against the distance to every background pixel."""
    rng = np.random.default_rng(seed)
    mask = np.pad(rng.random((17, 23)) < (0.8 if seed % 2 else 0.97), 1)
    background = np.argwhere(~mask)
    offsets = np.argwhere(np.ones_like(mask))[:, None] - background[None]
    wanted = (offsets**2).sum(axis=-1).min(axis=1).reshape(mask.shape)
    assert (compute_squared_depths(mask) == wanted).all()


def test_beyond_the_image_is_background() -> None:
    assert find_deepest_pixel(np.ones((21, 31), bool)) == (10, 10)
    assert find_deepest_pixel(np.zeros((4, 4), bool)) == (0, 0)
    assert find_deepest_pixel(disc_mask(radius=9)) != (0, 0)


@pytest.mark.parametrize("frame", GOLDEN["center_points"])
@pytest.mark.parametrize("name", GOLDEN["center_points"]["(96, 128)"])
def test_reference_clicks(frame: str, name: str) -> None:
    """The recorded points, the mask brought to the input frame by us."""
    mask = draw(name)
    input_hw = mask.shape
    if not frame.startswith("no rescale"):
        height, width = (int(side) for side in frame.strip("()").split(","))
        input_hw = height, width
    geometry = ImageGeometry(mask.shape, input_hw, 1024)
    found = find_center(mask, geometry, "reference")
    assert found.tolist() == GOLDEN["center_points"][frame][name]


def test_exact_click_in_the_input_frame() -> None:
    """The middle of a pixel stays the middle of what it becomes."""
    mask = np.zeros((10, 20), bool)
    mask[4, 7] = True
    geometry = ImageGeometry((10, 20), (512, 1024), 1024)
    wanted = [7.5 * 51.2 - 0.5, 4.5 * 51.2 - 0.5]
    assert find_center(mask, geometry, "exact").tolist() == pytest.approx(wanted)


def test_random_pixels_are_inside_and_the_same_again() -> None:
    mask = disc_mask(radius=5)
    found = draw_pixels(mask, 9, seed=3)
    assert mask[found[:, 1], found[:, 0]].all()
    assert len({tuple(one) for one in found.tolist()}) == 9
    assert (found == draw_pixels(mask, 9, seed=3)).all()
    assert (found != draw_pixels(mask, 9, seed=4)).any()


def test_more_points_than_pixels() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    assert draw_pixels(mask, 4, seed=0).tolist() == [[3, 2]] * 4
