"""A picture of what goes wrong: true outline beside the model's, cut out of the photo."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovsam_cli.errors import OutputError
from ovsam_cli.images import read_image
from ovsam_cli.masks import decode_mask, mask_boxes, mask_to_polygons
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import Rle

NUM_CASES = 12
MAX_BYTES = 1_200_000
COLUMNS = 4
SIDE, GAP = 190, 6  # pixels of a cut-out, and between two of a pair
CAPTION_HEIGHT, HEADING_HEIGHT, MARGIN = 44, 40, 14
PAIR_WIDTH = 2 * SIDE + GAP
CONTEXT = 0.3  # of the objects' longer side, shown around them
MIN_CUT = 24  # pixels of the photo, so that a tiny object is seen where it is
SUPERSAMPLING = 2
TRUE_COLOR, FOUND_COLOR, HALO = (70, 230, 90), (255, 140, 0), (0, 0, 0)
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (100, 100, 100)
MAX_NAME_LENGTH = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One object.

    Attributes:
        image: the photo.
        truth, found: true and predicted mask, original frame.
        iou: of the two.
        true_name, said_name: which name it has, and which the model says.
        is_right: whether these are names of the same.
    """

    image: Path
    truth: Rle
    found: Rle
    iou: float
    true_name: str
    said_name: str
    is_right: bool


def choose_cases(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """The worst cases by IoU, worst first, and those around the median."""
    ordered = sorted(cases, key=lambda case: case.iou)
    start = max(0, len(ordered) // 2 - NUM_CASES // 2)
    return ordered[:NUM_CASES], ordered[start : start + NUM_CASES]


def draw_montage(worst: Sequence[Case], median: Sequence[Case]) -> Image.Image:
    """Pairs of cut-outs under two headings; left the true outline, right the model's."""
    parts = [("Worst masks from box prompts", worst), ("Masks around the median", median)]
    heights = [HEADING_HEIGHT + _count_rows(cases) * _row_height() for _, cases in parts]
    width = COLUMNS * PAIR_WIDTH + (COLUMNS + 1) * MARGIN
    montage = Image.new("RGB", (width, sum(heights) + MARGIN), PAPER)
    top = 0
    for (heading, cases), height in zip(parts, heights, strict=True):
        _draw_heading(montage, heading, top)
        for number, case in enumerate(cases):
            row, column = divmod(number, COLUMNS)
            left = MARGIN + column * (PAIR_WIDTH + MARGIN)
            _draw_case(montage, case, left, top + HEADING_HEIGHT + row * _row_height())
        top += height
    return montage


def write_montage(montage: Image.Image, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Save as JPEG, at the best quality that fits, smaller where none does.

    Raises:
        OutputError: it does not fit even at a quarter of its size, or cannot be written.
    """
    for shrink in (1, 1.4, 2, 4):
        width, height = (max(1, round(side / shrink)) for side in montage.size)
        shrunk = montage if shrink == 1 else montage.resize((width, height))
        for quality in (90, 80, 70, 60):
            content = io.BytesIO()
            shrunk.save(content, format="JPEG", quality=quality, optimize=True)
            if content.tell() <= max_bytes:
                with write_whole_file(path) as file:
                    file.write(content.getvalue())
                return
    raise OutputError(f"{path}: the picture does not fit into {max_bytes} bytes; allow more")


def _count_rows(cases: Sequence[Case]) -> int:
    return -(-len(cases) // COLUMNS)


def _row_height() -> int:
    return SIDE + CAPTION_HEIGHT + MARGIN


def _draw_heading(montage: Image.Image, heading: str, top: int) -> None:
    draw = ImageDraw.Draw(montage)
    middle = top + HEADING_HEIGHT / 2
    font = ImageFont.load_default(19)
    draw.text((MARGIN, middle), heading, INK, font, "lm")
    x = MARGIN + font.getlength(heading) + 24
    small = ImageFont.load_default(15)
    for color, text in ((TRUE_COLOR, "true outline, left"), (FOUND_COLOR, "the model's, right")):
        draw.rectangle((x, middle - 7, x + 14, middle + 7), fill=color, outline=INK)
        draw.text((x + 20, middle), text, INK, small, "lm")
        x += small.getlength(text) + 44


def _draw_case(montage: Image.Image, case: Case, left: int, top: int) -> None:
    square = choose_square(case)
    for column, (mask, color) in enumerate(((case.truth, TRUE_COLOR), (case.found, FOUND_COLOR))):
        tile = draw_outline(read_image(case.image).rgb, mask, color, square)
        montage.paste(tile, (left + column * (SIDE + GAP), top))
    draw = ImageDraw.Draw(montage)
    font = ImageFont.load_default(15)
    verdict = f"said: {_shorten(case.said_name)}" + (" (right)" if case.is_right else "")
    draw.text((left, top + SIDE + 4), f"IoU {case.iou:.2f}", INK, font)
    draw.text((left + SIDE + GAP, top + SIDE + 4), verdict, INK, font)
    draw.text((left, top + SIDE + 22), f"is: {case.true_name}", FAINT, font)


def choose_square(case: Case) -> tuple[float, float, float]:
    """(left, top, side) in pixels of the photo, around both masks; may reach beyond its edges."""
    boxes = mask_boxes([case.truth, case.found])
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]  # an empty mask has no place
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(float((high - low).max()) * (1 + 2 * CONTEXT), MIN_CUT)
    middle = (low + high) / 2
    return float(middle[0]) - side / 2, float(middle[1]) - side / 2, side


def draw_outline(
    rgb: np.ndarray, mask: Rle, color: tuple[int, int, int], square: tuple[float, float, float]
) -> Image.Image:
    """A cut-out of SIDE x SIDE pixels with the outline of a mask.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        mask: original frame.
        color: of the outline.
        square: (left, top, side) in original pixels; what is beyond the photo stays gray.
    """
    left, top, side = square
    large = SIDE * SUPERSAMPLING
    scale = large / side
    inverse = (1 / scale, 0.0, left, 0.0, 1 / scale, top)
    photo = Image.fromarray(rgb).transform(
        (large, large),
        Image.Transform.AFFINE,
        inverse,
        resample=Image.Resampling.BICUBIC,
        fillcolor=(190, 190, 190),
    )
    draw = ImageDraw.Draw(photo)
    polygons = mask_to_polygons(mask).polygons if decode_mask(mask).any() else ()
    for line, ink in ((5, HALO), (3, color)):
        for polygon in polygons:
            points = (np.asarray(polygon).reshape(-1, 2) - (left, top)) * scale
            closed = [(float(x), float(y)) for x, y in [*points, points[0]]]
            draw.line(closed, fill=ink, width=line * SUPERSAMPLING // 2 + 1, joint="curve")
    tile = photo.resize((SIDE, SIDE), Image.Resampling.BOX)
    if not polygons:
        font = ImageFont.load_default(16)
        draw = ImageDraw.Draw(tile)
        draw.text((SIDE / 2, SIDE / 2), "nothing", color, font, "mm", stroke_width=2, stroke_fill=0)
    return tile


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 3] + "..."
