"""Baselines: shapes against their areas, on-the-edge and empty masks; the commonest name."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from builders import disc_mask

from ovsam_cli.evaluation.baselines import compute_majority_share, draw_baseline
from ovsam_cli.evaluation.datasets import Instance, InstanceDataset, InstanceImage
from ovsam_cli.masks import decode_mask, encode_mask, mask_iou

Shape = Literal["box", "ellipse"]


def test_box_is_the_tight_box_filled() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4, 7] = mask[11, 22] = True
    expected = np.zeros((20, 30), bool)
    expected[4:12, 7:23] = True
    assert (decode_mask(draw_baseline(encode_mask(mask), "box")) == expected).all()


def test_ellipse_of_a_disc_is_the_disc() -> None:
    disc = encode_mask(disc_mask(radius=18.5))
    assert mask_iou([draw_baseline(disc, "ellipse")], [disc])[0, 0] > 0.97


def test_ellipse_has_the_area_of_one_and_stays_in_the_box() -> None:
    mask = np.zeros((100, 160), bool)
    mask[10:90, 20:140] = True
    ellipse = decode_mask(draw_baseline(encode_mask(mask), "ellipse"))
    assert ellipse.sum() == pytest.approx(math.pi / 4 * mask.sum(), rel=0.01)
    assert not (ellipse & ~mask).any()


@pytest.mark.parametrize("shape", ["box", "ellipse"])
def test_single_pixel_and_whole_image(shape: Shape) -> None:
    mask = np.zeros((9, 9), bool)
    mask[8, 0] = True
    assert (decode_mask(draw_baseline(encode_mask(mask), shape)) == mask).all()
    whole = decode_mask(draw_baseline(encode_mask(~np.zeros((9, 9), bool)), shape))
    assert whole[4].all() and whole[:, 4].all()


@pytest.mark.parametrize("shape", ["box", "ellipse"])
def test_empty_mask_stays_empty(shape: Shape) -> None:
    assert not decode_mask(draw_baseline(encode_mask(np.zeros((9, 9), bool)), shape)).any()


def make_dataset(category_ids: list[int], names: dict[int, str]) -> InstanceDataset:
    segmentation = encode_mask(disc_mask())
    instances = tuple(Instance(row, one, segmentation, 9) for row, one in enumerate(category_ids))
    image = InstanceImage(Path("a.png"), 1, (48, 64), instances)
    return InstanceDataset(Path("a.json"), (image,), names)


def test_majority_counts_names_over_data_sets() -> None:
    """The same name has another id in the second data set."""
    first = make_dataset([1, 1, 2], {1: "cat", 2: "dog"})
    second = make_dataset([1, 1, 7], {1: "dog", 7: "cat"})
    assert compute_majority_share([first]) == pytest.approx(2 / 3)
    assert compute_majority_share([first, second]) == pytest.approx(3 / 6)
    assert math.isnan(compute_majority_share([make_dataset([], {})]))
