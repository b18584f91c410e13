"""Drawings cut out of their ground: one cached array a vendor, rendered once from SVG.

A sprite is a square RGBA picture; the cache is `CACHE/<vendor>-256.npy`, which is memory-mapped, so
that many processes share it, and `CACHE/<vendor>-256.json` with a name and a source a sprite.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.outlines import remove_small_regions
from ovsam_cli.training.scenes.sources import missing_extra

UInt8Array = npt.NDArray[np.uint8]

SPRITE_SIZE = 256  # pixels; larger objects are enlarged from this
ALPHA_CUT = 128  # from here on a pixel belongs to the object
MIN_OPAQUE_PIXELS = 400
MAX_SQUARE_FILL = 0.97  # a full square is a picture of something, not the thing


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawing before it is cached.

    Attributes:
        name: category name; empty where the drawing teaches masks only.
        source: `vendor/icon`.
        rgba: (SPRITE_SIZE, SPRITE_SIZE, 4) uint8, alpha not premultiplied.
    """

    name: str
    source: str
    rgba: UInt8Array


@dataclass(frozen=True, slots=True)
class SpriteSheet:
    """All drawings of one vendor.

    Attributes:
        names: N category names; empty ones teach masks only.
        sources: N times `vendor/icon`.
        rgba: (N, SPRITE_SIZE, SPRITE_SIZE, 4) uint8, usually memory-mapped.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    rgba: UInt8Array

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.sources) == len(self.rgba):
            raise ValueError(
                f"lengths differ: {len(self.names)} names, {len(self.sources)} sources, "
                f"{len(self.rgba)} drawings"
            )


def render_svg(svg: str) -> UInt8Array | None:
    """Render an SVG, longest side SPRITE_SIZE, centered on a transparent square.

    Returns:
        (SPRITE_SIZE, SPRITE_SIZE, 4) uint8, or None where the renderer refuses the file.
    """
    from PIL import Image

    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error

    try:
        png = bytes(
            resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, skip_system_fonts=True)
        )
    except (ValueError, RuntimeError):
        return None
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.height > SPRITE_SIZE:
        width = max(1, round(image.width * SPRITE_SIZE / image.height))
        image = image.resize((width, SPRITE_SIZE), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    square.paste(image, ((SPRITE_SIZE - image.width) // 2, (SPRITE_SIZE - image.height) // 2))
    return np.asarray(square)


def is_object_like(rgba: UInt8Array, *, min_largest_part: float = 0.0) -> bool:
    """Whether a drawing has enough opaque pixels, is no full square and does not fall apart.

    Args:
        rgba: (H, W, 4) uint8.
        min_largest_part: smallest share of the opaque pixels that the largest connected part may
            have; 0 skips the check.
    """
    opaque = rgba[..., 3] >= ALPHA_CUT
    area = int(opaque.sum())
    if area < MIN_OPAQUE_PIXELS:
        return False
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    box_area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    if area > MAX_SQUARE_FILL * box_area and box_area > 0.5 * opaque.size:
        return False
    if min_largest_part == 0.0:
        return True
    wanted = int(min_largest_part * area)
    return int((remove_small_regions(opaque, wanted) & opaque).sum()) >= wanted


def load_sheet(cache: Path, vendor: str, drawn: Iterable[Sprite]) -> SpriteSheet:
    """The sheet of `vendor`: from the cache, or made of `drawn` and cached.

    Args:
        cache: folder of the cached sheets.
        vendor: stem of the cache files.
        drawn: iterated only where the cache has no sheet.

    Raises:
        InputError: `drawn` yields nothing.
        OutputError: the cache cannot be written.
    """
    pixels_path = cache / f"{vendor}-{SPRITE_SIZE}.npy"
    index_path = pixels_path.with_suffix(".json")
    if not index_path.is_file():
        _save_sheet(pixels_path, index_path, vendor, drawn)
    index = json.loads(index_path.read_text(encoding="utf-8"))
    rgba: UInt8Array = np.load(pixels_path, mmap_mode="r")
    return SpriteSheet(names=tuple(index["names"]), sources=tuple(index["sources"]), rgba=rgba)


def _save_sheet(pixels_path: Path, index_path: Path, vendor: str, drawn: Iterable[Sprite]) -> None:
    names: list[str] = []
    sources: list[str] = []
    temporary = pixels_path.with_name(f".{pixels_path.stem}.{os.getpid()}.npy")
    try:
        pixels_path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.stack(list(_collect(drawn, names, sources)) or [_NO_SPRITE])
        if not names:
            raise InputError(
                f"{vendor}: not one drawing could be rendered; fetch its archive again"
            )
        np.save(temporary, pixels)
        os.replace(temporary, pixels_path)
        # The index comes last: it says that the pixels are complete.
        staged = index_path.with_name(f".{index_path.name}.{os.getpid()}.tmp")
        staged.write_text(json.dumps({"names": names, "sources": sources}), encoding="utf-8")
        os.replace(staged, index_path)
    except OSError as error:
        raise OutputError(
            f"{pixels_path}: cannot be written ({error.strerror}); free some space"
        ) from error


def _collect(drawn: Iterable[Sprite], names: list[str], sources: list[str]) -> Iterator[UInt8Array]:
    for sprite in drawn:
        names.append(sprite.name)
        sources.append(sprite.source)
        yield sprite.rgba


_NO_SPRITE = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
