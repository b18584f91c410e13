"""Pictures of results for people: masks, names, scores and prompts drawn over the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.label_layout import LabelRequest, place_labels
from ovsam_cli.outputs.mask_paint import (
    SUPERSAMPLING,
    Color,
    Shape,
    cut_shape,
    fill_opacity,
    object_color,
    paint_shape,
)
from ovsam_cli.outputs.prompt_marks import draw_prompts
from ovsam_cli.structures import Detections, ImageResult, IntArray

MIN_LONG_SIDE, MAX_LONG_SIDE = 900, 1600  # of the picture, so that text is readable and small
JPEG_QUALITY = 90
OWNER_CELL = 4  # pixels a cell of the map that says which object is seen where
MAX_NAME_LENGTH = 28

RgbArray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels of the picture."""

    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    padding: int

    @staticmethod
    def of(size: tuple[int, int], num_objects: int) -> _Style:
        crowding = 1.0 if num_objects <= 25 else 0.85 if num_objects <= 60 else 0.7
        font_size = max(11.0, math.sqrt(size[0] * size[1]) / 44 * crowding)
        line = 2 if num_objects > 60 else max(2, round(max(size) / 500))
        return _Style(line, ImageFont.load_default(font_size), max(2, round(font_size / 5)))


def write_preview(rgb: RgbArray, result: ImageResult, names: Mapping[int, str], path: Path) -> None:
    """Draw a result over its image and save it as JPEG.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        result: of this image; a failed one shows the image alone.
        names: category names by category_id; an id without a name is shown as it is.
        path: file to make or replace.

    Raises:
        OutputError: the file cannot be written.
    """
    picture = draw_preview(rgb, result, names)
    with write_whole_file(path) as file:
        picture.save(file, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def draw_preview(rgb: RgbArray, result: ImageResult, names: Mapping[int, str]) -> Image.Image:
    """Draw a result over its image, enlarged or shrunk so that labels can be read.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        result: of this image; a failed one shows the image alone.
        names: category names by category_id; an id without a name is shown as it is.
    """
    image = _fit(Image.fromarray(rgb))
    found = result.detections
    if found is None or not len(found):
        return image
    scale_xy = (image.width / rgb.shape[1], image.height / rgb.shape[0])
    style = _Style.of(image.size, len(found))
    colors = [object_color(index) for index in range(len(found))]
    pixels = np.asarray(image, np.float32).copy()
    shapes = [
        cut_shape(found.segmentations[row], found.boxes_xyxy[row], image.size, style.line)
        for row in range(len(found))
    ]
    order = np.argsort(-found.areas, kind="stable")  # small objects lie on large ones
    for row in order:
        opacity = fill_opacity(found.areas[row] / (rgb.shape[0] * rgb.shape[1]))
        paint_shape(pixels, shapes[row], colors[row], style.line, opacity)
    image = Image.fromarray(pixels.round().astype(np.uint8))
    draw_prompts(image, found.prompts, colors, scale_xy)
    owners = _map_owners(shapes, order, image.size)
    _draw_labels(image, _write_texts(found, names), shapes, owners, style)
    return image


def _fit(image: Image.Image) -> Image.Image:
    long_side = max(image.size)
    wanted = min(max(long_side, MIN_LONG_SIDE), MAX_LONG_SIDE)
    if wanted == long_side:
        return image
    size = [max(1, round(side * wanted / long_side)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _map_owners(shapes: list[Shape], order: IntArray, size: tuple[int, int]) -> IntArray:
    """(h, w) the object seen in each cell of the picture, or -1; see `place_labels`."""
    owners = np.full((-(-size[1] // OWNER_CELL), -(-size[0] // OWNER_CELL)), -1, np.int64)
    for row in order:
        shape = shapes[row]
        ys, xs = np.nonzero(np.asarray(shape.mask)[::SUPERSAMPLING, ::SUPERSAMPLING])
        owners[(ys + shape.top) // OWNER_CELL, (xs + shape.left) // OWNER_CELL] = row
    return owners


def _write_texts(found: Detections, names: Mapping[int, str]) -> list[str]:
    return [
        f"{_shorten(names.get(category_id, str(category_id)))} {score:.2f}"
        for category_id, score in zip(
            found.category_ids.tolist(), found.scores.tolist(), strict=True
        )
    ]


def _draw_labels(
    image: Image.Image, texts: list[str], shapes: list[Shape], owners: IntArray, style: _Style
) -> None:
    requests = [
        _request_label(shape, text, style) for shape, text in zip(shapes, texts, strict=True)
    ]
    places = place_labels(requests, image.size, owners, gap=style.line + 1)
    draw = ImageDraw.Draw(image)
    for row, place in enumerate(places):
        if place.is_detached:
            (x, y), (width, height) = place.xy, requests[row].size_wh
            start = (x + width / 2, y + height / 2)
            for color, line in (((0, 0, 0), style.line + 2), (object_color(row), style.line)):
                draw.line([start, requests[row].middle_xy], fill=color, width=line)
    for row, place in enumerate(places):
        (x, y), (width, height) = place.xy, requests[row].size_wh
        color = object_color(row)
        draw.rounded_rectangle(
            (x, y, x + width - 1, y + height - 1),
            radius=style.padding,
            fill=color,
            outline=(20, 20, 20),
        )
        draw.text((x + width / 2, y + height / 2), texts[row], _text_color(color), style.font, "mm")


def _request_label(shape: Shape, text: str, style: _Style) -> LabelRequest:
    # The same height for all texts, so that labels line up.
    ascent, descent = style.font.getbbox("Hg", anchor="ls")[1::2]
    text_width = style.font.getlength(text)
    size_wh = (text_width + 2 * style.padding + 2, descent - ascent + 2 * style.padding)
    mask = np.asarray(shape.mask) > 0
    origin = np.array([shape.left, shape.top])
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    middle = origin + _find_middle(shape.mask) / SUPERSAMPLING
    low = origin + np.array([columns[0], rows[0]]) / SUPERSAMPLING
    high = origin + (np.array([columns[-1], rows[-1]]) + 1) / SUPERSAMPLING
    top_x, bottom_x = (
        shape.left + np.flatnonzero(mask[row]).mean() / SUPERSAMPLING for row in rows[[0, -1]]
    )
    across = np.flatnonzero(mask[int((middle[1] - shape.top) * SUPERSAMPLING)])
    left_x, right_x = (
        shape.left + across[[0, -1]] / SUPERSAMPLING if across.size else (low[0], high[0])
    )
    return LabelRequest(
        box_xyxy=(low[0], low[1], high[0], high[1]),
        top_xy=(top_x, low[1]),
        bottom_xy=(bottom_x, high[1]),
        middle_xy=(middle[0], middle[1]),
        left_x=left_x,
        right_x=right_x,
        area=float(mask.sum()) / SUPERSAMPLING**2,
        size_wh=size_wh,
    )


def _find_middle(mask: Image.Image) -> NDArray[np.float64]:
    """(x, y) of a point far from the mask's edge: the last to survive erosion of a small copy."""
    factor = max(1, max(mask.size) // 48)
    small = np.pad(np.asarray(mask.reduce(factor)) > 127, 1)
    if not small.any():
        small = np.pad(np.asarray(mask.reduce(factor)) > 0, 1)
    left = small
    while left.any():
        small = left
        left = small.copy()
        left[1:-1, 1:-1] &= small[:-2, 1:-1] & small[2:, 1:-1] & small[1:-1, :-2] & small[1:-1, 2:]
    ys, xs = np.nonzero(small)
    nearest = np.hypot(ys - ys.mean(), xs - xs.mean()).argmin()
    point = (np.array([xs[nearest], ys[nearest]]) - 0.5) * factor  # 0.5: center, without the pad
    middle: NDArray[np.float64] = np.minimum(point, np.array(mask.size) - 1)
    return middle


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 3] + "..."


def _text_color(color: Color) -> Color:
    """Black or white, whichever reads better on `color` (weights of Rec. 709 luminance)."""
    luminance = 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]
    return (0, 0, 0) if luminance > 110 else (255, 255, 255)
