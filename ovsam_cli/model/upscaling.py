"""From image keys to mask logits: SAM's two transposed convolutions, as matrix products."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import LayerNorm2d, multiply_in_full

CELLS_A_STEP = 1024  # of the image embedding, upscaled together on the CPU


def draw_masks(
    layers: nn.Sequential, keys: Tensor, weights: Tensor, grid_hw: tuple[int, int]
) -> Tensor:
    """Upscale the keys four times and weigh their channels.

    Args:
        layers: SAM's: transposed convolution, layer norm, GELU, transposed convolution, GELU. Both
            convolutions have kernel and stride 2.
        keys: (B, h * w, D) cells of the image.
        weights: (B, M, C) of the upscaled keys' channels.
        grid_hw: (h, w).

    Returns:
        (B, M, 4h, 4w) logits in float32 or better, even within autocast.
    """
    num_prompts, (height, width) = len(keys), grid_hw
    logits = _weigh_pixels(layers, keys, weights.transpose(1, 2))  # (B, h * w * 16, M)
    # Each cell's pixels: first step's row and column, then the second step's.
    logits = logits.view(num_prompts, height, width, 2, 2, 2, 2, weights.shape[1])
    logits = logits.permute(0, 7, 1, 3, 5, 2, 4, 6)  # rows together, columns together
    return logits.reshape(num_prompts, weights.shape[1], 4 * height, 4 * width)


def _weigh_pixels(layers: nn.Sequential, keys: Tensor, weights: Tensor) -> Tensor:
    """(B, h * w, D) keys, upscaled, times (B, C, M) weights -> (B, h * w * 16, M)."""
    if keys.device.type != "cpu" or torch.compiler.is_compiling() or len(keys) == 0:
        return multiply_in_full(_upscale(layers, keys), weights)
    # Step by step, so that the values between stay in the processor's cache.
    parts = [
        multiply_in_full(_upscale(layers, cells), weights[prompt : prompt + 1])
        for prompt in range(len(keys))
        for cells in torch.split(keys[prompt : prompt + 1], CELLS_A_STEP, dim=1)
    ]
    return torch.cat(parts, dim=1).view(len(keys), -1, weights.shape[-1])


def _upscale(layers: nn.Sequential, keys: Tensor) -> Tensor:
    """Image keys (B, N, D) -> (B, N * 16, C): 4 x 4 pixels a cell, channels last."""
    first, second = cast(nn.ConvTranspose2d, layers[0]), cast(nn.ConvTranspose2d, layers[3])
    norm = cast(LayerNorm2d, layers[1])
    pixels = F.gelu(norm.normalize_last(_double(keys, first)))
    return F.gelu(_double(pixels, second))


def _double(pixels: Tensor, conv: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of kernel and stride 2 as one matrix product.

    Args:
        pixels: (B, N, D).
        conv: D -> C channels.

    Returns:
        (B, N * 4, C): each pixel's two by two, row by row.
    """
    matrix = conv.weight.permute(2, 3, 1, 0).reshape(-1, pixels.shape[-1])  # (4 * C, D)
    doubled = F.linear(pixels, matrix, cast(Tensor, conv.bias).repeat(4))
    return doubled.view(len(pixels), 4 * pixels.shape[1], conv.out_channels)
