"""Two small pictures of one place: the true mask, and the one that was found."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ovsam_cli import masks
from ovsam_cli.outputs.mask_paint import Color, cut_shape, fill_opacity, paint_shape
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import Rle

SIDE = 220
JPEG_QUALITY = 78
LINE = 2
SURROUNDINGS = 0.3  # of the longer side of both masks, shown on each side of them
MIN_SIDE = 40  # pixels of the original frame shown at least
TRUE_COLOR: Color = (74, 222, 128)
FOUND_COLOR: Color = (255, 149, 0)


@dataclass(frozen=True, slots=True)
class PairPictures:
    """Two JPEGs as base64 text, and their size in pixels."""

    truth: str
    found: str
    width: int
    height: int


def draw_pair(rgb: RgbArray, truth: Rle, found: Rle) -> PairPictures:
    """Cut out the place of two masks and paint one on each copy of it.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        truth, found: masks of that image; either may be empty, which shows the place alone.
    """
    x0, y0, x1, y1 = _choose_frame(rgb, truth, found)
    picture = Image.fromarray(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    pictures = [
        _encode(_paint(picture, masks.decode_mask_columns(one, x0, x1)[y0:y1], color))
        for one, color in ((truth, TRUE_COLOR), (found, FOUND_COLOR))
    ]
    return PairPictures(pictures[0], pictures[1], *size)


def _paint(picture: Image.Image, mask: np.ndarray, color: Color) -> Image.Image:
    """Paint an (h, w) bool mask of the same place."""
    if not mask.any():
        return picture
    rle = masks.encode_mask(mask)
    pixels = np.asarray(picture, np.float32).copy()
    shape = cut_shape(rle, masks.mask_boxes([rle])[0], picture.size, LINE)
    paint_shape(pixels, shape, color, LINE, fill_opacity(1.0))
    return Image.fromarray(pixels.round().astype(np.uint8))


def _choose_frame(rgb: RgbArray, truth: Rle, found: Rle) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around both masks, inside the image."""
    boxes = masks.mask_boxes([truth, found])
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    size = np.asarray(rgb.shape[1::-1], np.float64)
    if not len(boxes):
        return 0, 0, int(size[0]), int(size[1])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    reach = SURROUNDINGS * float((high - low).max())
    half = np.maximum((high - low) / 2 + reach, MIN_SIDE / 2)
    middle = (low + high) / 2
    x0, y0 = np.floor((middle - half).clip(0)).astype(int).tolist()
    x1, y1 = np.ceil(np.minimum(middle + half, size)).astype(int).tolist()
    return x0, y0, x1, y1


def _encode(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
