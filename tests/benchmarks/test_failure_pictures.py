"""The picture of failures: which objects, its size in pixels and bytes, outlines in their place."""

from __future__ import annotations

from pathlib import Path

import failure_pictures
import numpy as np
import pytest
from builders import disc_mask
from failure_pictures import (
    FOUND_COLOR,
    SIDE,
    TRUE_COLOR,
    Case,
    choose_cases,
    choose_square,
    draw_montage,
    draw_outline,
    write_montage,
)
from PIL import Image

from ovsam_cli.errors import OutputError
from ovsam_cli.masks import encode_mask

TRUTH = encode_mask(disc_mask(radius=10))
FOUND = encode_mask(disc_mask(radius=6))
NOTHING = encode_mask(np.zeros((48, 64), bool))


def make_case(iou: float, *, found: object = FOUND, image: Path = Path("a.png")) -> Case:
    return Case(image, TRUTH, found, iou, "cup", "bowl", False)


@pytest.fixture
def gray(tmp_path: Path) -> Path:
    path = tmp_path / "gray.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(path)
    return path


def count_color(picture: Image.Image, color: tuple[int, int, int]) -> int:
    """Pixels near a color; outlines are smooth, and a JPEG is not exact."""
    distance = np.abs(np.asarray(picture, np.int64) - color).max(axis=-1)
    return int((distance < 60).sum())


def test_worst_and_median() -> None:
    cases = [make_case(iou) for iou in np.random.default_rng(0).permutation(100) / 100]
    worst, median = choose_cases(cases)
    assert [case.iou for case in worst] == [number / 100 for number in range(12)]
    assert [case.iou for case in median] == [number / 100 for number in range(44, 56)]


def test_few_objects_are_shown_twice() -> None:
    worst, median = choose_cases([make_case(0.5), make_case(0.1)])
    assert [case.iou for case in worst] == [case.iou for case in median] == [0.1, 0.5]


def test_square_surrounds_both_masks() -> None:
    """The larger disc is 21 pixels wide; 30 % are left free on each side."""
    left, top, side = choose_square(make_case(0.4))
    assert side == pytest.approx(21 * 1.6)
    assert (left + side / 2, top + side / 2) == (32.5, 24.5)


def test_square_of_an_empty_answer() -> None:
    assert choose_square(make_case(0, found=NOTHING)) == choose_square(make_case(0.4))


def test_outline_lies_where_the_mask_ends() -> None:
    """A square of 32 pixels around the disc: its edge is 10.5 / 32 of the side from the middle."""
    rgb = np.full((48, 64, 3), 90, np.uint8)
    tile = draw_outline(rgb, TRUTH, TRUE_COLOR, (16.5, 8.5, 32.0))
    assert tile.size == (SIDE, SIDE)
    row = np.asarray(tile, np.int64)[SIDE // 2]
    green = np.flatnonzero(row[:, 1] - row[:, 0] > 80)
    edge = SIDE * 10.5 / 32
    assert green.min() == pytest.approx(SIDE / 2 - edge, abs=3)
    assert green.max() == pytest.approx(SIDE / 2 + edge, abs=3)


def test_montage(gray: Path, tmp_path: Path) -> None:
    cases = [make_case(number / 20, image=gray) for number in range(12)]
    cases[0] = make_case(0, found=NOTHING, image=gray)
    montage = draw_montage(cases, cases[:5])
    rows = 3 + 2
    assert montage.height > rows * SIDE
    assert count_color(montage, TRUE_COLOR) > 1000
    assert count_color(montage, FOUND_COLOR) > 1000
    write_montage(montage, tmp_path / "failures.jpg")
    assert (tmp_path / "failures.jpg").stat().st_size <= failure_pictures.MAX_BYTES
    with Image.open(tmp_path / "failures.jpg") as saved:
        assert saved.size == montage.size


def test_montage_gets_smaller_until_it_fits(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    path = tmp_path / "failures.jpg"
    write_montage(Image.fromarray(noise), path, max_bytes=20_000)
    assert path.stat().st_size <= 20_000
    with Image.open(path) as saved:
        assert saved.width < 400
    with pytest.raises(OutputError, match="does not fit into 100 bytes"):
        write_montage(Image.fromarray(noise), tmp_path / "small.jpg", max_bytes=100)
    assert not (tmp_path / "small.jpg").exists()
