"""Bytes become the model's numbers on the device: the same ones as on the host."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import photo

from ovsam_cli.images import preprocess, resize_to_input
from ovsam_cli.labelling.planner import PixelFormat
from ovsam_cli.labelling.upload import PixelSlots, normalize_and_pad

FORMAT = PixelFormat(64, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
SIZES = [(48, 64), (200, 90), (90, 200), (1, 500), (64, 64), (3, 2)]


@pytest.mark.parametrize(
    "mean_std",
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ((0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255), (68.5, 66.6, 70.3)),
        ((0.0, 0.0, 0.0), (3.0, 7.0, 255.0)),
    ],
    ids=["imagenet", "clip", "plain"],
)
def test_numbers_are_those_of_preprocess(
    mean_std: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    mean, std = mean_std
    generator = np.random.default_rng(1)
    images = [generator.integers(0, 256, (*hw, 3), dtype=np.uint8) for hw in SIZES]
    expected = [preprocess(rgb, model_size=64, mean=mean, std=std)[0] for rgb in images]
    resized = [torch.tensor(resize_to_input(rgb, 64)[0]) for rgb in images]
    pixels = normalize_and_pad(resized, PixelFormat(64, mean, std))
    assert pixels.dtype == torch.float32 and pixels.shape == (len(SIZES), 3, 64, 64)
    assert np.array_equal(pixels.numpy(), np.stack(expected))  # every bit
    height, width = resized[0].shape[:2]
    assert not pixels[0, :, height:].any() and not pixels[0, :, :, width:].any()


def test_all_levels_are_equal_to_the_last_bit() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8), 48).reshape(64, 64, 3)
    expected, _ = preprocess(levels, model_size=64, mean=FORMAT.mean, std=FORMAT.std)
    pixels = normalize_and_pad([torch.tensor(levels)], FORMAT)
    assert np.array_equal(pixels[0].numpy(), expected)


def test_slots_are_a_ring_of_fixed_memory() -> None:
    slots = PixelSlots(3, model_size=64, device=torch.device("cpu"))
    places = set()
    for _ in range(5):
        first = slots.take(2)
        assert first is not None and slots.take(2) is None
        one = slots.take(1)
        assert one is not None and slots.take(1) is None
        taken = (*first, *one)
        places.update(slots.buffer(slot).ctypes.data for slot in taken)
        rgb = photo(48, 64)
        slots.buffer(taken[0])[: rgb.size] = rgb.ravel()
        view = slots.buffer(taken[0])[: rgb.size].reshape(rgb.shape)
        (uploaded,) = slots.upload([view], taken)
        assert np.array_equal(uploaded.numpy(), rgb)
    assert len(places) == 3
