"""Masks painted on pictures: a translucent fill, a contour in the color, a dark halo around it."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ovsam_cli import masks
from ovsam_cli.structures import FloatArray, Rle

GOLDEN_ANGLE = 0.381966  # of a full turn: consecutive hues are as far apart as can be
FILL_OPACITY, LARGE_FILL_OPACITY = 0.42, 0.26  # a large object must not tint all of the picture
LARGE_SHARE = 0.25
HALO_OPACITY = 0.55  # of the dark line around each contour, which shows on any background
SUPERSAMPLING = 2  # contours are drawn larger and shrunk, for smooth edges

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """One object's pixels in the picture, cut out with a margin.

    Attributes:
        left, top: where the cut-out lies.
        mask: its mask, enlarged by SUPERSAMPLING; 0 or 255.
    """

    left: int
    top: int
    mask: Image.Image


def object_color(index: int) -> Color:
    """A vivid color for the object at `index`, far in hue from its neighbors in the list."""
    hue = (0.56 + index * GOLDEN_ANGLE) % 1.0
    lightness = (0.58, 0.68, 0.50)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def fill_opacity(share: float) -> float:
    """How strongly an object is filled that covers this share of its picture."""
    return LARGE_FILL_OPACITY if share > LARGE_SHARE else FILL_OPACITY


def cut_shape(rle: Rle, box_xyxy: FloatArray, size: tuple[int, int], line: int) -> Shape:
    """Resize an object's mask into the picture; thin objects keep at least a pixel.

    Args:
        rle: its mask, original frame.
        box_xyxy: (4,) tight around it, original frame.
        size: width and height of the picture.
        line: width of the contour in its pixels.
    """
    mask = masks.decode_mask(rle)
    scale = np.array(size) / mask.shape[::-1]
    margin = 2 * line
    low = np.maximum(np.floor(box_xyxy[:2] * scale) - margin, 0).astype(int)
    high = np.minimum(np.ceil(box_xyxy[2:] * scale) + margin, size).astype(int)
    source = np.minimum(
        np.concatenate([low, high]) / np.tile(scale, 2), np.tile(mask.shape[::-1], 2)
    )
    enlarged = (high - low) * SUPERSAMPLING
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        (int(enlarged[0]), int(enlarged[1])),
        Image.Resampling.BILINEAR,
        box=(float(source[0]), float(source[1]), float(source[2]), float(source[3])),
    )
    threshold = min(127, int(np.asarray(smooth).max()) - 1)
    return Shape(
        int(low[0]), int(low[1]), smooth.point([255 * (v > threshold) for v in range(256)])
    )


def paint_shape(
    pixels: NDArray[np.float32], shape: Shape, color: Color, line: int, opacity: float
) -> None:
    """Blend the fill, the contour inside the mask's edge and the halo outside it.

    Args:
        pixels: (h, w, 3) of the picture in 0..255, changed in place.
        shape: of the object, cut for this picture.
        color: of fill and contour.
        line: width of the contour in pixels.
        opacity: of the fill, 0..1.
    """
    mask = shape.mask
    # A box blur is 255 only where all neighbors are set, and 0 only where none is.
    inner = mask.filter(ImageFilter.BoxBlur(line * SUPERSAMPLING)).point(
        [255 * (value == 255) for value in range(256)]
    )
    outer = mask.filter(ImageFilter.BoxBlur(SUPERSAMPLING)).point(
        [255 * (value > 0) for value in range(256)]
    )
    inside, core, around = (_shrink(layer) for layer in (mask, inner, outer))
    height, width = inside.shape[:2]
    region = pixels[shape.top : shape.top + height, shape.left : shape.left + width]
    region *= 1 - HALO_OPACITY * (around - inside)
    coverage = opacity * core + (inside - core)
    region += coverage * (np.array(color, np.float32) - region)


def _shrink(layer: Image.Image) -> NDArray[np.float32]:
    """(h, w, 1) float32 coverage of the picture's pixels, 0..1."""
    coverage = np.asarray(layer.reduce(SUPERSAMPLING), np.float32) / np.float32(255)
    return coverage[:, :, None]
