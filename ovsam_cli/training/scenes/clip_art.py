"""Drawings of the Open Clip Art Library: shapes for masks, many more than emoji have."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

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
# Frames, letters, playing cards, diagrams and patterns are no objects.
_SKIPPED_FOLDERS = frozenset(
    "special cards flowchart callouts arrows logos signs_and_symbols geography buttons gradients "
    "patterns duplicates etiquette-theme jigsaw flags".split()
)


def load_clip_art_sheet(sources: Path) -> SpriteSheet:
    """Single, connected drawings without a name, cached below `sources`.

    Raises:
        InputError: the archive is missing or broken, or dpkg-deb is not installed.
        OutputError: the cache cannot be written.
    """
    return load_sheet(sources / "cache", "openclipart", _draw_clip_art(sources))


def _draw_clip_art(sources: Path) -> Iterator[Sprite]:
    archive = find_archive(sources, CLIP_ART_PACKAGE)
    with tempfile.TemporaryDirectory() as folder:
        extract_deb(archive, Path(folder))
        root = Path(folder) / "usr/share/openclipart/svg"
        num_drawn = 0
        # Sorting by stem mixes the folders, so that the cut at MAX_CLIP_ART is fair.
        for path in sorted(root.rglob("*.svg"), key=lambda found: found.stem):
            parts = path.relative_to(root).parts
            if num_drawn == MAX_CLIP_ART:
                return
            if _SKIPPED_FOLDERS.intersection(parts) or path.stat().st_size > MAX_SVG_BYTES:
                continue
            rgba = render_svg(path.read_text(encoding="utf-8", errors="replace"))
            if rgba is not None and is_object_like(rgba, min_largest_part=MIN_LARGEST_PART):
                num_drawn += 1
                yield Sprite("", "openclipart/" + "/".join(parts)[:-4], rgba)
