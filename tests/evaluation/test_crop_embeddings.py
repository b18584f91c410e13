"""Crops reach CLIP as its own preprocessing would bring them: against open_clip's transform."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from builders import photo
from model_builders import make_same_trunks
from PIL import Image

from ovsam_cli.evaluation.crop_embeddings import (
    CLIP_MEAN,
    CLIP_STD,
    cut_square,
    embed_crops,
    normalize_crops,
)
from ovsam_cli.labelling.stages import Labeller

SIDE = 96


@pytest.mark.parametrize("hw", [(480, 640), (40, 50), (300, 70), (96, 96), (1, 1)])
def test_as_open_clip(hw: tuple[int, int]) -> None:
    """Large, small, long, of the very size, and a single pixel; whole images, so nothing is cut."""
    from open_clip.transform import image_transform

    rgb = np.ascontiguousarray(np.tile(photo(), (12, 16, 1))[: hw[0], : hw[1]])
    assert rgb.shape == (*hw, 3)
    transform = image_transform(SIDE, is_train=False, resize_mode="squash")
    wanted = transform(Image.fromarray(rgb)).numpy()
    box = np.asarray([0, 0, hw[1], hw[0]], np.float32)
    found = normalize_crops([cut_square(rgb, box, SIDE)], CLIP_MEAN, CLIP_STD)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_square_box_as_clip_itself() -> None:
    """CLIP's default cuts the middle square: of a square box that is all of it."""
    from open_clip.transform import image_transform

    rgb = photo()
    side = min(rgb.shape[:2]) - 7
    cut = rgb[5 : 5 + side, 3 : 3 + side]
    wanted = image_transform(SIDE, is_train=False)(Image.fromarray(cut)).numpy()
    box = np.asarray([3, 5, 3 + side, 5 + side], np.float32)
    found = normalize_crops([cut_square(rgb, box, SIDE)], CLIP_MEAN, CLIP_STD)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ((-9, -9, 0.5, 0.5), (0, 0)),
        ((79.2, 59.4, 79.2, 59.4), (59, 79)),
        ((500, 500, 600, 600), (59, 79)),
    ],
)
def test_at_least_a_pixel_is_taken(box: tuple[float, ...], pixel: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    square = cut_square(rgb, np.asarray(box, np.float32), 4)
    assert (square == rgb[pixel]).all()


@torch.inference_mode()
def test_crops_are_embedded_as_by_open_clip() -> None:
    """Cut, brought to the tower's square and encoded: open_clip's vectors of the same crops."""
    from open_clip.transform import image_transform

    ours, theirs = make_same_trunks()
    config = SimpleNamespace(trunk="clip-resnet", trunk_image_size=SIDE)
    labeller = SimpleNamespace(
        model=SimpleNamespace(backbone=ours, config=config),
        device=torch.device("cpu"),
        autocast=nullcontext,
    )
    rgb = np.ascontiguousarray(np.tile(photo(), (12, 16, 1))[:200, :260])
    boxes = np.asarray([[0, 0, 260, 200], [30, 40, 90, 180], [5, 5, 9, 7]], np.float32)
    transform = image_transform(SIDE, is_train=False, resize_mode="squash")
    crops = [Image.fromarray(rgb[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes.astype(int)]
    wanted = theirs(torch.stack([transform(crop) for crop in crops]))
    found = embed_crops(cast(Labeller, labeller), rgb, boxes)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
