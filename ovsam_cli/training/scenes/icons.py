"""Emoji of the iconify packages, one vendor a package, by concept.

`concepts.tsv` says which short names draw which concept; vendors spell them with or without
hyphens, with numbers at the end (`banana-1`) or as a skin tone (`girl-dark-skin-tone`).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypedDict

from ovsam_cli.errors import InputError
from ovsam_cli.training.scenes.sources import ICON_PACKAGES, find_archive, read_tar_member
from ovsam_cli.training.scenes.sprites import (
    Sprite,
    SpriteSheet,
    UInt8Array,
    is_object_like,
    load_sheet,
    render_svg,
)

_SUFFIX = re.compile(r"-(?:\d|(?:(?:medium-)?(?:dark|light)|medium)(?:-skin-tone)?)$")
SKIN_TONES_PER_ICON = 2  # more would make people of nearly all drawings


class _Icon(TypedDict, total=False):
    body: str
    left: int
    top: int
    width: int
    height: int


class _IconSet(TypedDict, total=False):
    icons: dict[str, _Icon]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Concept:
    """A thing with a name.

    Attributes:
        name: category name, lower case.
        in_demo: whether the demo vocabulary has it.
        icons: emoji short names that draw it.
    """

    name: str
    in_demo: bool
    icons: tuple[str, ...]


def read_concepts() -> tuple[Concept, ...]:
    """The concepts of `concepts.tsv`, in the order of the file."""
    text = resources.files("ovsam_cli.training.scenes").joinpath("concepts.tsv").read_text("utf-8")
    concepts = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, in_demo, icons = line.split("\t")
            concepts.append(Concept(name, in_demo == "1", tuple(icons.split(" "))))
    return tuple(concepts)


def load_icon_sheet(sources: Path, vendor: str) -> SpriteSheet:
    """All drawings of one vendor that a concept names, cached below `sources`.

    Args:
        sources: folder with the archives.
        vendor: a key of ICON_PACKAGES.

    Raises:
        InputError: the archive is missing or broken.
        OutputError: the cache cannot be written.
    """
    return load_sheet(sources / "cache", vendor, _draw_vendor(sources, vendor))


def draw_icons(sources: Path, vendor: str, icon_names: Sequence[str]) -> dict[str, UInt8Array]:
    """Render chosen icons of a vendor, uncached.

    Args:
        sources: folder with the archives.
        vendor: a key of ICON_PACKAGES.
        icon_names: names in its package.

    Returns:
        For each name its (SPRITE_SIZE, SPRITE_SIZE, 4) uint8 drawing.

    Raises:
        InputError: the archive is missing or broken, or has no such icon.
    """
    icon_set = _read_icon_set(sources, vendor)
    drawn = {}
    for icon_name in icon_names:
        icon = icon_set["icons"].get(icon_name)
        rgba = None if icon is None else render_svg(_svg(icon, icon_set))
        if rgba is None:
            raise InputError(f"{vendor}: no icon {icon_name} that can be drawn; look in icons.json")
        drawn[icon_name] = rgba
    return drawn


def _read_icon_set(sources: Path, vendor: str) -> _IconSet:
    archive = find_archive(sources, ICON_PACKAGES[vendor])
    icon_set: _IconSet = json.loads(read_tar_member(archive, "package/icons.json"))
    return icon_set


def _draw_vendor(sources: Path, vendor: str) -> Iterator[Sprite]:
    icon_set = _read_icon_set(sources, vendor)
    names = {_spelling(icon): concept.name for concept in read_concepts() for icon in concept.icons}
    drawn_per_icon: dict[str, int] = {}
    for icon_name in sorted(icon_set["icons"]):
        icon = icon_set["icons"][icon_name]
        exact = _spelling(icon_name)
        base = exact if exact in names else _spelling(_SUFFIX.sub("", icon_name))
        if base not in names or drawn_per_icon.get(base, 0) > SKIN_TONES_PER_ICON:
            continue
        rgba = render_svg(_svg(icon, icon_set))
        if rgba is not None and is_object_like(rgba):
            drawn_per_icon[base] = drawn_per_icon.get(base, 0) + 1
            yield Sprite(names[base], f"{vendor}/{icon_name}", rgba)


def _spelling(icon_name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", icon_name.lower())


def _svg(icon: _Icon, icon_set: _IconSet) -> str:
    width = icon.get("width", icon_set.get("width", 16))
    height = icon.get("height", icon_set.get("height", 16))
    view_box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{view_box}">{icon["body"]}</svg>'
    )
