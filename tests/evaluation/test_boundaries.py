"""Boundary IoU against faster-coco-eval's boundaries, and edges."""

import numpy as np
import pytest
from builders import disc_mask
from faster_coco_eval.core import mask as other

from ovsam_cli.evaluation.boundaries import compute_boundary_iou, find_boundary
from ovsam_cli.masks import encode_mask

HW = (90, 120)


def make_mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(HW, bool)
    for _ in range(3):
        top, left = int(rng.integers(0, 70)), int(rng.integers(0, 100))
        mask[top : top + int(rng.integers(5, 40)), left : left + int(rng.integers(5, 40))] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_same_as_another_program(seed: int) -> None:
    masks = [make_mask(seed), make_mask(seed + 100)]
    rles = [encode_mask(mask) for mask in masks]
    edges = [other.decode(other.rleToBoundary(rle, 0.02)) > 0 for rle in rles]
    wanted = (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum()
    assert compute_boundary_iou(rles[0], rles[1]) == pytest.approx(wanted)


def test_boundary_of_a_square() -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:14, 5:15] = True
    inner = np.zeros_like(mask)
    inner[6:12, 7:13] = True
    assert (find_boundary(mask, 2) == (mask & ~inner)).all()


def test_equal_and_empty_masks() -> None:
    disc, nothing = encode_mask(disc_mask()), encode_mask(np.zeros_like(disc_mask()))
    assert compute_boundary_iou(disc, disc) == 1.0
    assert compute_boundary_iou(nothing, disc) == 0.0
    assert compute_boundary_iou(nothing, nothing) == 1.0
