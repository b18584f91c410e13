"""The files of the page, read once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the page and its kind."""

    content: bytes
    media_type: str


def read_static_files() -> dict[str, StaticFile]:
    """All files of the page by name."""
    found = {}
    for entry in (files("ovsam_cli.demo") / "static").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in MEDIA_TYPES:
            found[entry.name] = StaticFile(entry.read_bytes(), MEDIA_TYPES[suffix])
    return found
