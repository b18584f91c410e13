"""Find the images of a run: on this machine, and in stores behind a URL."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.remote import is_url, list_files, parent_of, parse_location, read_url, without_query
from ovsam_cli.structures import ImageRecord

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .avif .jp2 .j2k .jpx .tif .tiff .gif .bmp .dib "
    ".ppm .pgm .pbm .pnm .tga".split()
)


def find_images(arguments: Sequence[str]) -> list[ImageRecord]:
    """List the images that files, folders, glob patterns, URLs and `@list` files stand for.

    Folders, also those of a store, are searched recursively for known image suffixes; hidden
    entries and linked folders are left out. A file named directly is taken whatever its suffix. A
    list file has one path or URL a line, paths relative to its own folder. The same file named
    twice is listed once.

    Returns:
        Records sorted by `file_name`, the POSIX path relative to the folder given, or to the
        common parent of several arguments. Undecodable bytes stay as surrogate escapes.

    Raises:
        InputError: a path does not exist or cannot be read, or no image was found.
    """
    given_by_place: dict[str, str] = {}
    bases: list[str] = []
    walked: set[tuple[int, int]] = set()
    for argument in arguments:
        for path in _expand(argument):
            if is_url(path):
                base, found = _find_remote(path, is_listed=argument.startswith("@"))
            else:
                base, found = _find_local(path, walked)
            bases.append(base)
            for place, given in found:
                given_by_place.setdefault(place, given)
    if not given_by_place:
        raise InputError(
            f"no image found in {', '.join(arguments) or 'nothing'}; looked for "
            f"{' '.join(sorted(IMAGE_SUFFIXES))} (linked and hidden folders are not searched)"
        )
    root_length = len(_find_root(bases))
    named = sorted((place[root_length:].lstrip("/"), p) for place, p in given_by_place.items())
    return [
        ImageRecord(path=parse_location(p), file_name=name.replace(os.sep, "/"), image_id=number)
        for number, (name, p) in enumerate(named, start=1)
    ]


def _find_root(bases: Sequence[str]) -> str:
    """The folder above all bases. (`os.path.commonpath` changes `a//b`, which stores may have.)"""
    root = bases[0].rstrip("/")
    while not all(f"{base}/".startswith(f"{root}/") for base in bases):
        root = root.rpartition("/")[0]
    return root


def _find_local(path: str, walked: set[tuple[int, int]]) -> tuple[str, list[tuple[str, str]]]:
    """The folder of a file or folder, and (real path, path as given) of each image."""
    if os.path.isdir(path):
        base = os.path.realpath(path)
        names = list(_walk(base, "", walked))
        return base, [(f"{base}/{name}", os.path.join(path, name)) for name in names]
    base = os.path.realpath(os.path.dirname(path) or ".")
    return base, [(f"{base}/{os.path.basename(path)}", path)]


def _find_remote(url: str, *, is_listed: bool) -> tuple[str, list[tuple[str, str]]]:
    """The same of a URL; places begin with the protocol. URLs of a list are not looked for."""
    base, urls = (parent_of(url), [url]) if is_listed else list_files(url)
    if urls != [url]:
        hidden = [one for one in urls if "/." in one[len(base) :]]
        urls = sorted(set(urls).difference(hidden))
        urls = [one for one in urls if _has_image_suffix(one)]
    return _place(base), [(_place(one), one) for one in urls]


def _place(url: str) -> str:
    """A URL as if it were a path. A query that only opens an image is no part of its name."""
    plain = without_query(url)
    return "/" + (plain if _has_image_suffix(plain) else url).replace("://", "/", 1)


def _expand(argument: str) -> Iterator[str]:
    location = parse_location(argument)
    if isinstance(location, str):
        yield location
    elif os.path.exists(location):
        yield argument if argument == str(location) else os.fspath(location)
    elif argument.startswith("@"):
        yield from _read_list(argument[1:])
    else:
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"{argument}: no such file or folder, and no file matches the pattern")
        yield from (path for path in matches if os.path.isdir(path) or _has_image_suffix(path))


def _read_list(path: str) -> Iterator[str]:
    try:
        lines = (read_url(path) if is_url(path) else Path(path).read_bytes()).splitlines()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot read the list of images: {reason}") from error
    folder = parent_of(path) if is_url(path) else os.path.dirname(path)
    for number, line in enumerate(lines, start=1):
        if not (text := os.fsdecode(line.strip())):
            continue
        entry = text if is_url(text) else os.path.join(folder, text)
        if not is_url(entry) and not os.path.lexists(entry):
            raise InputError(f"{path}:{number}: {entry} does not exist")
        yield entry


def _walk(base: str, relative: str, walked: set[tuple[int, int]]) -> Iterator[str]:
    """Yield image paths below `base`, relative to it; each folder (device, inode) only once."""
    folder = os.path.join(base, relative)
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if (status.st_dev, status.st_ino) in walked:
        return
    walked.add((status.st_dev, status.st_ino))
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(base, name, walked)
        elif _has_image_suffix(entry.name) and not os.path.isdir(entry.path):
            yield name


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
