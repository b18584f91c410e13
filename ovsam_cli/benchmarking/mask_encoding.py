"""Logits to encoded masks: the reference's order of operations against ours."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from ovsam_cli import masks
from ovsam_cli.benchmarking.comparison import USUAL_ROUNDS, Comparison, Parity, time_in_turns
from ovsam_cli.structures import FloatArray, ImageGeometry, Rle

MaskKind = Literal["smooth", "wiggly"]
MaskForm = Literal["numpy", "compiled"]

_CELLS, _MODEL_SIZE = 256, 1024
_ROUNDING_LIMIT = 1e-5  # logits: what float32 leaves of a value between cells up to 18 large


def time_mask_encoding(
    original_hw: tuple[int, int],
    kind: MaskKind,
    form: MaskForm,
    *,
    num_masks: int = 8,
    rounds: int = USUAL_ROUNDS,
    target: float | None = None,
) -> Comparison:
    """Time the whole chain from logits to run lengths, areas and boxes; core seconds.

    Args:
        original_hw: of the image whose masks are encoded.
        kind: an ellipse, or one whose outline winds.
        form: NumPy, or what Numba compiles.
        num_masks, rounds: masks of one round, and how often each side runs.
        target: ratio that was aimed at.
    """
    scale = _MODEL_SIZE / max(original_hw)
    height, width = (int(side * scale + 0.5) for side in original_hw)
    geometry = ImageGeometry(original_hw, (height, width), _MODEL_SIZE)
    cells = make_mask_logits(kind, num_masks)
    compiled = form == "compiled"
    baseline, ours = time_in_turns(
        lambda: encode_in_reference_order(cells, geometry),
        lambda: masks.encode_mask_logits(cells, geometry, compiled=compiled),
        rounds=rounds,
    )
    return Comparison(
        key="",
        name=f"logits to RLE, {original_hw[0]} x {original_hw[1]}, {kind} masks, {form}",
        clock="core",
        baseline_seconds=baseline,
        our_seconds=ours,
        parity=_compare_pixels(cells, geometry, compiled),
        target=target,
        note=f"{num_masks} masks a round",
    )


def encode_in_reference_order(cells: FloatArray, geometry: ImageGeometry) -> masks.EncodedMasks:
    """Upscale, cut, upscale, sigmoid > 0.5 (spec section 4.3), then encode each full-size mask.

    Args:
        cells: (N, h, w) logits.
        geometry: of their image.
    """
    is_inside = (upscale_in_reference_order(cells, geometry).sigmoid() > 0.5).numpy()
    segmentations: list[Rle] = [masks.encode_mask(one) for one in is_inside]
    return masks.EncodedMasks(
        tuple(segmentations), masks.mask_areas(segmentations), masks.mask_boxes(segmentations)
    )


def upscale_in_reference_order(cells: FloatArray, geometry: ImageGeometry) -> torch.Tensor:
    """(N, H, W) logits of the original frame from (N, h, w)."""
    size, (height, width) = geometry.model_size, geometry.input_hw
    full = F.interpolate(torch.from_numpy(cells)[:, None], (size, size), mode="bilinear")
    full = F.interpolate(full[..., :height, :width], geometry.original_hw, mode="bilinear")
    return full[:, 0]


def _compare_pixels(
    cells: FloatArray, geometry: ImageGeometry, compiled: bool
) -> tuple[Parity, ...]:
    """Pixels that differ, and the largest logit among them."""
    logits = upscale_in_reference_order(cells, geometry).numpy()
    found = masks.encode_mask_logits(cells, geometry, compiled=compiled)
    num_different, largest = 0, 0.0
    for one, rle in zip(logits, found.segmentations, strict=True):
        different = np.abs(one[(one > 0) != masks.decode_mask(rle)])
        num_different += len(different)
        largest = max(largest, float(different.max(initial=0)))
    return (
        Parity("pixels that differ", num_different, max(logits.size * 1e-6, 1)),
        Parity("largest |logit| of a pixel that differs", largest, _ROUNDING_LIMIT),
    )


def make_mask_logits(kind: MaskKind, count: int, seed: int = 0) -> FloatArray:
    """(count, 256, 256) logits in [-20, 20] of random ellipses, 1 to 10 % of the frame large."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:_CELLS, :_CELLS].astype(np.float32)
    center = generator.uniform(0.25, 0.5, (2, count, 1, 1)) * _CELLS
    radius = generator.uniform(0.06, 0.2, (2, count, 1, 1)) * _CELLS
    down, right = (y - center[0]) / radius[0], (x - center[1]) / radius[1]
    outline = np.ones_like(down)
    if kind == "wiggly":
        angle = np.arctan2(down, right)
        for waves in range(3, 20):
            phase, height = generator.uniform(0, 6.28, (count, 1, 1)), 0.3 / waves**0.7
            outline += height * np.sin(waves * angle + phase)
    logits: FloatArray = ((outline - np.hypot(down, right)) * 10).clip(-20, 20).astype(np.float32)
    return logits
