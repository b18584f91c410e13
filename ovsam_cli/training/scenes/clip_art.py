"""Drawings of the Open Clip Art Library: more shapes for masks, and a style of their own for names.

A file name mostly starts with what the drawing shows: `pizza_cheese_bw.svg`. It gives a name only
where it starts with a concept and holds no word that makes it another thing (`potato_chips`).
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ovsam_cli.training.scenes.icons import read_concepts
from ovsam_cli.training.scenes.sources import CLIP_ART_PACKAGE, extract_deb, find_archive
from ovsam_cli.training.scenes.sprites import (
    Sprite,
    SpriteSheet,
    is_object_like,
    load_sheet,
    render_svg,
)

MAX_SVG_BYTES = 200_000  # larger files are scenes, and take seconds
MIN_LARGEST_PART = 0.85  # the rest falls apart into letters, borders or several things
MAX_CLIP_ART = 3000
MAX_WORDS_OF_NAME = 3
# Frames, letters, playing cards, diagrams, screen icons and patterns are no objects.
_SKIPPED_FOLDERS = frozenset(
    "special cards flowchart callouts arrows logos signs_and_symbols geography buttons gradients "
    "patterns duplicates icons folders jigsaw flags".split()
)
_OPENING_WORDS = frozenset(
    "a an another the blue red green yellow black white brown simple".split()
)
_OTHER_THINGS = frozenset(
    "juice cap glove bat helmet burger chips toast rings ride muffin onelette arms eye cichlid "
    "stand paste avvolgibile star wedge symbol jack folders spring".split()
)


def load_clip_art_sheet(sources: Path) -> SpriteSheet:
    """Single, connected drawings, most of them without a name, cached below `sources`.

    Raises:
        InputError: the archive is missing or broken, or dpkg-deb is not installed.
        OutputError: the cache cannot be written.
    """
    return load_sheet(sources / "cache", "openclipart", _draw_clip_art(sources))


def name_of_file(stem: str, names: Mapping[str, str]) -> str:
    """What the file name of a drawing says that it shows.

    Args:
        stem: file name without suffix, such as `red_apple_bw`.
        names: category name by spelling, words joined with underscores.

    Returns:
        A category name, or "" where none is certain.
    """
    words = [word for word in re.split(r"[^a-z]+", stem.lower()) if word]
    if _OTHER_THINGS.intersection(words):
        return ""
    if words and words[0] in _OPENING_WORDS:
        words = words[1:]
    for count in range(min(MAX_WORDS_OF_NAME, len(words)), 0, -1):
        if found := names.get("_".join(words[:count])):
            return found
    return ""


def read_spellings() -> dict[str, str]:
    """Category name by each spelling of its name and icons, words joined with underscores."""
    spellings = {}
    for concept in read_concepts():
        for icon in concept.icons:
            spellings[icon.replace("-", "_")] = concept.name
    # A name outranks an icon of another concept that is called the same.
    spellings.update({concept.name.replace(" ", "_"): concept.name for concept in read_concepts()})
    return spellings


def is_wanted(folders: tuple[str, ...], stem: str, seen: set[str]) -> bool:
    """Whether a file stands in no skipped folder and is no copy of one that was seen."""
    return not _SKIPPED_FOLDERS.intersection(folders) and stem not in seen


def _draw_clip_art(sources: Path) -> Iterator[Sprite]:
    archive = find_archive(sources, CLIP_ART_PACKAGE)
    names = read_spellings()
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        extract_deb(archive, Path(folder))
        root = Path(folder) / "usr/share/openclipart/svg"
        # Sorting by stem mixes the folders, so that the cut at MAX_CLIP_ART is fair.
        for path in sorted(root.rglob("*.svg"), key=lambda found: (found.stem, str(found))):
            parts = path.relative_to(root).parts
            if len(seen) == MAX_CLIP_ART:
                return
            if not is_wanted(parts[:-1], path.stem, seen) or path.stat().st_size > MAX_SVG_BYTES:
                continue
            rgba = render_svg(path.read_text(encoding="utf-8", errors="replace"))
            if rgba is not None and is_object_like(rgba, min_largest_part=MIN_LARGEST_PART):
                seen.add(path.stem)
                source = "openclipart/" + "/".join((*parts[:-1], path.stem))
                yield Sprite(name_of_file(path.stem, names), source, rgba)
