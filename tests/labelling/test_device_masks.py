"""The torch form of mask encoding against the NumPy form, on the CPU and on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from logit_builders import KINDS, geometry_of, make_logits, upscale_with_torch

from ovsam_cli import masks
from ovsam_cli.labelling.device_masks import encode_device_logits

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("original_hw", [(97, 131), (480, 640), (1, 1), (1, 70), (300, 40)])
def test_masks_are_those_of_the_numpy_form(
    original_hw: tuple[int, int], kind: str, device: str
) -> None:
    """A GPU fuses products and sums, so there pixels of logits near 0 may differ."""
    for side, model_size in ((256, 1024), (128, 512), (20, 70)):
        geometry = geometry_of(*original_hw, model_size)
        cells = make_logits(kind, 4, side, seed=3)
        expected = masks.encode_mask_logits(cells, geometry, mask_threshold=0.25)
        found = encode_device_logits(
            torch.from_numpy(cells).to(device), geometry, mask_threshold=0.25
        )
        upscaled = upscale_with_torch(cells - np.float32(0.25), geometry)
        for row, rle in enumerate(found.segmentations):
            if rle != expected.segmentations[row]:
                decoded = masks.decode_mask(rle)
                differ = decoded != masks.decode_mask(expected.segmentations[row])
                assert device == "cuda" and (np.abs(upscaled[row][differ]) < 1e-5).all()
        if device == "cpu":
            assert found.areas.tolist() == expected.areas.tolist()
            assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)


def test_no_masks() -> None:
    assert len(encode_device_logits(torch.zeros(0, 8, 8), geometry_of(4, 5, 16))) == 0


def test_sizes_of_no_model() -> None:
    cells = torch.full((1, 9, 9), 2.0)
    assert encode_device_logits(cells, geometry_of(4, 5, 6)).areas.tolist() == [20]
