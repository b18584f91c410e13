"""Prompts drawn on a picture: points with plus or minus, dashed boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

from ovsam_cli.structures import Prompts

POSITIVE_COLOR, NEGATIVE_COLOR = (24, 160, 72), (214, 40, 40)
SUPERSAMPLING = 4
DASH = 9  # pixels drawn, then as many left out
MANY_POINTS = 40  # from here on marks are small dots: a grid would hide the objects

Color = tuple[int, int, int]


def draw_prompts(
    image: Image.Image,
    prompts: Prompts,
    colors: Sequence[Color],
    scale_xy: tuple[float, float],
) -> None:
    """Draw prompts on a picture, boxes below points.

    Args:
        image: RGB, changed in place.
        prompts: in the original frame.
        colors: of each prompt's object; boxes have it.
        scale_xy: picture pixels an original pixel, along x and y.
    """
    scale_x, scale_y = scale_xy
    draw = ImageDraw.Draw(image)
    for row in range(len(prompts)):
        if prompts.has_box[row]:
            x0, y0, x1, y1 = prompts.boxes_xyxy[row].tolist()
            box = (x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
            _draw_dashed_box(draw, box, colors[row])
    is_small = int((prompts.point_labels >= 0).sum()) > MANY_POINTS
    radius = max(3, round(max(image.size) / (320 if is_small else 150)))
    marks = {label: _make_mark(label, radius, is_small) for label in (0, 1)}
    for row in range(len(prompts)):
        for (x, y), label in zip(
            prompts.point_coords[row].tolist(), prompts.point_labels[row].tolist(), strict=True
        ):
            if label in marks:
                mark = marks[label]
                corner = (
                    round(x * scale_x - mark.width / 2),
                    round(y * scale_y - mark.height / 2),
                )
                image.paste(mark, corner, mark)


def _make_mark(label: int, radius: int, is_small: bool) -> Image.Image:
    """An RGBA disc with a white ring, and a plus (label 1) or minus (0) unless it is small."""
    side = 2 * radius + 3
    large = side * SUPERSAMPLING
    mark = Image.new("RGBA", (large, large), (0, 0, 0, 0))
    draw = ImageDraw.Draw(mark)
    draw.ellipse((0, 0, large - 1, large - 1), fill=(0, 0, 0, 150))
    edge = SUPERSAMPLING
    draw.ellipse((edge, edge, large - 1 - edge, large - 1 - edge), fill=(255, 255, 255, 255))
    edge += max(SUPERSAMPLING, round(large * 0.08))
    fill = POSITIVE_COLOR if label == 1 else NEGATIVE_COLOR
    draw.ellipse((edge, edge, large - 1 - edge, large - 1 - edge), fill=(*fill, 255))
    if not is_small:
        middle, arm, half = (large - 1) / 2, large * 0.22, large * 0.055
        white = (255, 255, 255, 255)
        draw.rectangle((middle - arm, middle - half, middle + arm, middle + half), fill=white)
        if label == 1:
            draw.rectangle((middle - half, middle - arm, middle + half, middle + arm), fill=white)
    return mark.resize((side, side), Image.Resampling.LANCZOS)


def _draw_dashed_box(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], color: Color
) -> None:
    """A dark thin line all around, bright dashes on it."""
    x0, y0, x1, y1 = box
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    draw.line(corners, fill=(20, 20, 20), width=2)
    for (ax, ay), (bx, by) in pairwise(corners):
        length = max(abs(bx - ax), abs(by - ay))
        for start in range(0, int(length), 2 * DASH):
            near, far = start / length, min(start + DASH, length) / length
            draw.line(
                [
                    (ax + (bx - ax) * near, ay + (by - ay) * near),
                    (ax + (bx - ax) * far, ay + (by - ay) * far),
                ],
                fill=color,
                width=2,
            )
