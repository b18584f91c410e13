"""Views: picture and masks are cut alike, small and hidden objects go, seeds repeat."""

from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask, photo
from PIL import Image
from scene_builders import write_scenes

from ovsam_cli.training.data import (
    MIN_AREA,
    Window,
    cut_image,
    cut_mask,
    jitter_colors,
    sample_view,
    sample_window,
    to_pixels,
)

SIZE = 96


@pytest.mark.parametrize("seed", range(8))
def test_picture_and_mask_are_cut_alike(seed: int) -> None:
    """A picture that is its own mask: after crop, scale and flip it still is, pixel by pixel."""
    mask = disc_mask(100, 140, center_yx=(50, 70), radius=40)
    picture = Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))
    window = sample_window(mask.shape, SIZE, np.random.default_rng(seed))
    found = cut_mask(mask, window, SIZE)
    assert found is not None
    height, width = window.input_hw
    rgb = cut_image(picture, window)
    assert rgb.shape == (height, width, 3)
    assert ((rgb[..., 0] >= 128) == found[:height, :width]).all()
    assert not found[height:].any() and not found[:, width:].any()


@pytest.mark.parametrize("original_hw", [(100, 140), (300, 50), (20, 20), (1, 400)])
def test_windows_stay_in_the_picture_and_keep_its_aspect(original_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(100):
        window = sample_window(original_hw, SIZE, rng)
        left, top, right, bottom = window.box
        height, width = window.input_hw
        assert 0 <= left < right <= original_hw[1] + 1e-6
        assert 0 <= top < bottom <= original_hw[0] + 1e-6
        assert 1 <= height <= SIZE and 1 <= width <= SIZE
        if height > 1:  # a side below one pixel is one
            wanted = (right - left) * height / (bottom - top)
            assert abs(width - wanted) <= 0.5 + 0.5 * wanted / height
        flips += window.is_flipped
    assert 30 < flips < 70


def test_flip_is_left_to_right() -> None:
    mask = disc_mask(SIZE, SIZE, center_yx=(40, 20), radius=10)
    box = (0.0, 0.0, float(SIZE), float(SIZE))
    plain = cut_mask(mask, Window(box, (SIZE, SIZE), False), SIZE)
    flipped = cut_mask(mask, Window(box, (SIZE, SIZE), True), SIZE)
    assert plain is not None and flipped is not None
    assert (plain == mask).all()
    assert (flipped == mask[:, ::-1]).all()


def test_small_and_hidden_objects_are_dropped() -> None:
    whole = Window((0.0, 0.0, 96.0, 96.0), (SIZE, SIZE), False)
    small = np.zeros((SIZE, SIZE), bool)
    small[:4, :7] = True
    assert cut_mask(small, whole, SIZE) is None  # 28 pixels
    small[:4, :8] = True
    found = cut_mask(small, whole, SIZE)
    assert found is not None and found.sum() == MIN_AREA
    wide = np.zeros((SIZE, SIZE), bool)
    wide[:20, :] = True
    corner = Window((0.0, 0.0, 18.0, 18.0), (90, 90), False)
    assert cut_mask(wide, corner, SIZE) is None  # less than a fifth of it in sight
    assert cut_mask(np.zeros((SIZE, SIZE), bool), whole, SIZE) is None


def test_views_repeat_with_their_seed_and_name_their_masks(tmp_path: Path) -> None:
    dataset = write_scenes(tmp_path / "scenes")
    image = dataset.images[0]
    views = [sample_view(dataset, image, SIZE, np.random.default_rng(n)) for n in (1, 1, 2)]
    first, same, other = views
    assert first is not None and same is not None and other is not None
    assert (first.rgb == same.rgb).all() and (first.masks == same.masks).all()
    assert first.names == same.names
    assert first.rgb.shape != other.rgb.shape or (first.rgb != other.rgb).any()
    assert first.masks.shape == (len(first.names), SIZE, SIZE)
    assert set(first.names) <= {"disc", "bar"}


def test_nothing_in_sight_is_no_view(tmp_path: Path) -> None:
    dataset = write_scenes(tmp_path / "scenes")
    bare = type(dataset.images[0])(dataset.images[0].path, 1, (128, 160), ())
    assert sample_view(dataset, bare, SIZE, np.random.default_rng(0)) is None


@pytest.mark.parametrize("seed", range(10))
def test_colors_change_but_not_the_frame(seed: int) -> None:
    rgb = photo(40, 56)
    one, same = (jitter_colors(rgb, np.random.default_rng(seed)) for _ in range(2))
    assert one.dtype == np.uint8 and one.shape == rgb.shape
    assert (one == same).all()
    assert (one != rgb).any()


def test_pixels_are_normalized_before_they_are_padded() -> None:
    rgb = np.full((2, 3, 3), (0, 100, 255), np.uint8)
    pixels = to_pixels(rgb, 4, (100, 100, 105), (50, 50, 75))
    assert pixels.shape == (3, 4, 4) and pixels.dtype == np.float32
    assert (pixels[:, :2, :3].reshape(3, -1).T == (-2, 0, 2)).all()
    assert not pixels[:, 2:].any() and not pixels[:, :, 3:].any()
