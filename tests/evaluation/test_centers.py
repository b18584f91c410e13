"""The centre of a mask: the reference's points, pixel by pixel."""

import numpy as np
import pytest

from ovsam_cli.evaluation.centers import compute_center_point, compute_depths

ROWS, COLUMNS = np.mgrid[:120, :160]
SHAPES = {
    "disc": ((COLUMNS - 60) ** 2 + (ROWS - 50) ** 2 <= 30**2, (60, 50)),
    "rectangle": ((COLUMNS >= 20) & (COLUMNS < 140) & (ROWS >= 70) & (ROWS < 110), (40, 89)),
    "pixel": ((COLUMNS == 7) & (ROWS == 3), (7, 3)),
    "half disc at the border": (COLUMNS**2 + (ROWS - 60) ** 2 <= 40**2, (18, 60)),
    "whole image": (COLUMNS >= 0, (60, 59)),
    "empty": (COLUMNS < 0, (0, 0)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_center_points_are_the_references(name: str) -> None:
    mask, expected = SHAPES[name]
    assert compute_center_point(mask) == expected


def test_annulus_center_lies_in_the_ring() -> None:
    distance2 = (COLUMNS - 80) ** 2 + (ROWS - 60) ** 2
    assert compute_center_point((distance2 >= 25**2) & (distance2 <= 55**2)) == (80, 21)


def test_depths_jump_where_the_reference_jumps() -> None:
    disc = np.pad((COLUMNS - 60) ** 2 + (ROWS - 50) ** 2 <= 30**2, 1)
    row = compute_depths(disc)[51, 31:39]
    expected = [0.55047, 1.17161, 1.83279, 3.83279, 4.83279, 6.83279, 7.83279, 9.83279]
    np.testing.assert_allclose(row, expected, atol=1e-4)
