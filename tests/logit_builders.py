"""Low-resolution mask logits of many kinds, and what the definition makes of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ovsam_cli.structures import ImageGeometry


def geometry_of(height: int, width: int, model_size: int = 1024) -> ImageGeometry:
    """As `images.preprocess` records it."""
    scale = model_size / max(height, width)
    input_hw = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    return ImageGeometry((height, width), input_hw, model_size)


def upscale_with_torch(mask_logits: np.ndarray, geometry: ImageGeometry) -> np.ndarray:
    """The definition, word by word (spec section 4.3): (N, H, W)."""
    size, (height, width) = geometry.model_size, geometry.input_hw
    full = F.interpolate(torch.from_numpy(mask_logits)[:, None], (size, size), mode="bilinear")
    full = F.interpolate(full[..., :height, :width], geometry.original_hw, mode="bilinear")
    return full[:, 0].numpy()


def make_fields(generator: np.random.Generator, count: int, side: int, detail: int) -> np.ndarray:
    """(count, side, side) smooth random values, about 1 large, `detail` bumps along a side."""
    bumps = generator.normal(size=(count, 1, detail + 1, detail + 1)).astype(np.float32)
    return F.interpolate(torch.from_numpy(bumps), (side, side), mode="bicubic")[:, 0].numpy()


def _smooth(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    center, radius = (generator.uniform(0.05, 0.6, (2, 2, count, 1, 1)) * side).clip(min=2)
    distance = np.hypot((y - center[0]) / radius[0], (x - center[1]) / radius[1])
    return ((1 - distance) * 10).clip(-18, 18)


def _wiggly(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    return _smooth(generator, count, side) + 3 * make_fields(generator, count, side, side // 6)


def _holes(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    return 4 + 8 * make_fields(generator, count, side, max(side // 8, 2))


def _tiny(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    cells = np.full((count, side, side), -6.0)
    y, x = generator.integers(0, max(side // 2, 1), (2, count))
    cells[np.arange(count), y, x] = generator.uniform(0.5, 9, count)
    return cells


def _border(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Along the top, the left, or both, and beyond the cut at the right and the bottom."""
    y, x = np.mgrid[:side, :side]
    reach = generator.uniform(0.01, 0.3, (2, count, 1, 1)) * side
    edges = np.maximum(reach[0] - y, reach[1] - x)
    return np.where(np.arange(count)[:, None, None] % 2, edges, -edges)


def _noise(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    return generator.normal(size=(count, side, side)) * 6


def _ties(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Small integers: many pixels of exactly 0."""
    return generator.integers(-2, 3, (count, side, side))


def _constant(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    values = np.resize([3.0, -3.0, 0.0, 1e-6], count)
    return np.broadcast_to(values[:, None, None], (count, side, side))


def _stripes(generator: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Rows, columns or a checkerboard of cells, so that every cell is a bend."""
    y, x = np.mgrid[:side, :side]
    signs = np.stack([(-1) ** y, (-1) ** x, (-1) ** (x + y)])[np.arange(count) % 3]
    return signs * generator.uniform(1, 9, (count, side, side))


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "smooth": _smooth,
    "wiggly": _wiggly,
    "holes": _holes,
    "tiny": _tiny,
    "border": _border,
    "noise": _noise,
    "ties": _ties,
    "constant": _constant,
    "stripes": _stripes,
}


def make_logits(kind: str, count: int, side: int, seed: int = 0) -> np.ndarray:
    """(count, side, side) float32 logits of one of `KINDS`."""
    cells = KINDS[kind](np.random.default_rng(seed), count, side)
    return np.ascontiguousarray(cells, np.float32)
