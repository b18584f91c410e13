"""Views: picture and masks are cut alike, small and hidden objects go, seeds repeat."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask, photo
from PIL import Image

from ovsam_cli.errors import ImageError
from ovsam_cli.masks import decode_mask, decode_mask_columns, encode_mask
from ovsam_cli.training.augmentation import (
    AugmentationOptions,
    Window,
    cut_image,
    cut_masks,
    find_tight_box,
    jitter_colors,
    sample_window,
    to_pixels,
)

SIZE = 96
OPTIONS = AugmentationOptions(model_size=SIZE)
FAST = AugmentationOptions(SIZE, (0.6, 1.9), is_log_uniform=True, is_exact=False)


@pytest.mark.parametrize("options", [OPTIONS, FAST])
@pytest.mark.parametrize("seed", range(6))
def test_picture_and_mask_are_cut_alike(
    tmp_path: Path, seed: int, options: AugmentationOptions
) -> None:
    """A picture that is its own mask: after crop, scale and flip it still is, but for edges."""
    mask = disc_mask(100, 140, center_yx=(50, 70), radius=40)
    path = tmp_path / "disc.png"
    Image.fromarray(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)).save(path)
    window = sample_window((100, 140), options, np.random.default_rng(seed))
    found = cut_masks([encode_mask(mask)], window, options)
    assert found is not None
    (height, width), cut = window.input_hw, found.masks[0]
    rgb = cut_image(path, window, is_exact=options.is_exact)
    assert rgb.shape == (height, width, 3)
    differs = (rgb[..., 0] >= 128) != cut[:height, :width]
    assert differs.sum() <= 0.5 * np.sqrt(cut.sum())
    assert not cut[height:].any() and not cut[:, width:].any()
    assert (found.boxes_xyxy[0] == find_tight_box(cut)).all()


@pytest.mark.parametrize("options", [OPTIONS, FAST])
@pytest.mark.parametrize("original_hw", [(100, 140), (300, 50), (20, 20), (1, 400)])
def test_windows_stay_in_the_picture_and_keep_its_aspect(
    original_hw: tuple[int, int], options: AugmentationOptions
) -> None:
    rng = np.random.default_rng(0)
    flips, ratios = 0, []
    for _ in range(100):
        window = sample_window(original_hw, options, rng)
        for axis, start in enumerate((window.top, window.left)):
            part, whole = window.input_hw[axis], window.resized_hw[axis]
            assert 0 <= start <= whole - part and 1 <= part == min(whole, SIZE)
        scale = max(window.resized_hw) / max(original_hw)
        for side, resized in zip(original_hw, window.resized_hw, strict=True):
            assert abs(resized - side * scale) <= 1
        ratios.append(max(window.resized_hw) / SIZE)
        flips += window.is_flipped
    low, high = options.scale_range
    assert low - 0.02 <= min(ratios) < low + 0.1 and high - 0.15 < max(ratios) <= high + 0.02
    assert 30 < flips < 70


def test_flip_is_left_to_right() -> None:
    mask = disc_mask(SIZE, SIZE, center_yx=(40, 20), radius=10)
    plain = Window((SIZE, SIZE), (SIZE, SIZE), 0, 0, (SIZE, SIZE), False)
    for window, expected in ((plain, mask), (replace(plain, is_flipped=True), mask[:, ::-1])):
        found = cut_masks([encode_mask(mask)], window, OPTIONS)
        assert found is not None and (found.masks[0] == expected).all()


def test_small_and_hidden_objects_are_dropped() -> None:
    whole = Window((SIZE, SIZE), (SIZE, SIZE), 0, 0, (SIZE, SIZE), False)
    small, enough = np.zeros((2, SIZE, SIZE), bool)
    small[:4, :7] = enough[:4, :8] = True
    runs = [encode_mask(small), encode_mask(enough), encode_mask(small & ~small)]
    found = cut_masks(runs, whole, OPTIONS)
    assert found is not None and found.rows.tolist() == [1] and found.masks.sum() == 32
    assert cut_masks([runs[0], runs[2]], whole, OPTIONS) is None
    wide = np.zeros((SIZE, SIZE), bool)
    wide[:20, :] = True
    corner = Window((SIZE, SIZE), (480, 480), 0, 0, (90, 90), False)  # 18 original pixels
    assert cut_masks([encode_mask(wide)], corner, OPTIONS) is not None
    assert cut_masks([encode_mask(wide)], corner, replace(OPTIONS, min_visible_share=0.2)) is None


def test_the_first_objects_are_kept() -> None:
    runs = [encode_mask(disc_mask(SIZE, SIZE, center_yx=(50, 10 * n))) for n in range(1, 8)]
    whole = Window((SIZE, SIZE), (SIZE, SIZE), 0, 0, (SIZE, SIZE), False)
    found = cut_masks(runs, whole, replace(OPTIONS, max_objects=3))
    assert found is not None and found.rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("draft", [False, True])
def test_both_readings_show_the_same(tmp_path: Path, draft: bool) -> None:
    """Smooth pictures look alike whichever way they are read, big JPEG files included."""
    scale = 8 if draft else 1
    y, x = np.mgrid[: 60 * scale, : 80 * scale] / scale
    gray = (127 + 60 * np.sin(x / 15) + 60 * np.cos(y / 12)).astype(np.uint8)
    path = tmp_path / "smooth.jpg"
    Image.fromarray(np.repeat(gray[..., None], 3, axis=2)).save(path, quality=95)
    window = sample_window(gray.shape, FAST, np.random.default_rng(3))
    exact, fast = (cut_image(path, window, is_exact=one).astype(int) for one in (True, False))
    assert abs(exact - fast).max() <= 4


@pytest.mark.parametrize("is_exact", [True, False])
def test_pictures_that_cannot_be_used(tmp_path: Path, is_exact: bool) -> None:
    window = Window((40, 56), (SIZE, SIZE), 0, 0, (SIZE, SIZE), False)
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match=r"a\.png"):
        cut_image(path, window, is_exact=is_exact)
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.png"):
        cut_image(path, window, is_exact=is_exact)
    Image.fromarray(photo(40, 57)).save(path)
    with pytest.raises(ImageError, match="40 x 57 pixels, but its annotations are for 40 x 56"):
        cut_image(path, window, is_exact=is_exact)


@pytest.mark.parametrize("part", [(0, 64), (10, 11), (20, 50), (63, 64), (0, 1)])
def test_columns_of_a_mask(part: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for mask in (disc_mask(), np.zeros((48, 64), bool), np.ones((48, 64), bool),
                 rng.random((48, 64)) < 0.5):  # fmt: skip
        runs = encode_mask(mask)
        assert (decode_mask_columns(runs, *part) == decode_mask(runs)[:, part[0] : part[1]]).all()


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
