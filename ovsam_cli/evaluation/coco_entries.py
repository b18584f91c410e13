"""One entry of a COCO or LVIS file at a time, checked; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco_values import Entry, as_entry, read_file_name, read_integer
from ovsam_cli.prompt_files.json_stream import JsonStream, open_json


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One of `images`.

    Attributes:
        file: `file_name`, or folder and name of `coco_url`.
        is_lvis: there is no `file_name`.
        negative_ids, not_exhaustive_ids: LVIS's categories that are known to be absent, and those
            whose objects are not all marked; None where the entry does not say.
    """

    image_id: int
    original_hw: tuple[int, int]
    file: PurePosixPath
    is_lvis: bool
    negative_ids: tuple[int, ...] | None = None
    not_exhaustive_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CategoryEntry:
    """One of `categories`; `frequency` is LVIS's `r`, `c` or `f`, else empty."""

    id: int
    name: str
    frequency: str


@dataclass(frozen=True, slots=True)
class Tables:
    """The short lists of a file."""

    images: tuple[ImageEntry, ...]
    categories: tuple[CategoryEntry, ...]

    @property
    def category_names(self) -> dict[int, str]:
        """Name of each category id."""
        return {one.id: one.name for one in self.categories}


@contextmanager
def open_coco(path: Path, what: str, example: str) -> Iterator[JsonStream]:
    """Open a file; what goes wrong inside becomes one line.

    Args:
        path: of a JSON file.
        what: it should be, for messages.
        example: of such a file.

    Raises:
        InputError: not there, not JSON, or an entry is not as it should be.
    """
    try:
        with open_json(path) as stream:
            yield stream
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: not a {what}: no such file; give its path, such as {example}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a {what} ({type(error).__name__}: {error}); "
            "expected images, annotations with segmentations, and categories"
        ) from error


def read_tables(stream: JsonStream) -> Tables:
    """Images and categories; annotations are only walked over.

    Raises:
        ValueError, KeyError, TypeError: not such a file.
    """
    lists: dict[str, list[object]] = {}
    stream.rewind()
    has_annotations = False
    for key in stream.iter_keys():
        if key in ("images", "categories"):
            lists[key] = [*stream.iter_items()]
        else:
            stream.skip()
            has_annotations |= key == "annotations"
    if not has_annotations:
        raise KeyError("annotations")
    return Tables(
        images=tuple(_read_image(as_entry(one)) for one in lists["images"]),
        categories=tuple(_read_category(as_entry(one)) for one in lists["categories"]),
    )


def iter_annotations(stream: JsonStream) -> Iterator[Entry]:
    """The entries of `annotations`, from the file's beginning."""
    stream.rewind()
    for key in stream.iter_keys():
        if key == "annotations":
            yield from map(as_entry, stream.iter_items())
        else:
            stream.skip()


def _read_image(entry: Entry) -> ImageEntry:
    return ImageEntry(
        image_id=read_integer(entry, "id"),
        original_hw=(read_integer(entry, "height"), read_integer(entry, "width")),
        file=PurePosixPath(read_file_name(entry)),
        is_lvis="file_name" not in entry,
        negative_ids=_read_ids(entry, "neg_category_ids"),
        not_exhaustive_ids=_read_ids(entry, "not_exhaustive_category_ids"),
    )


def _read_ids(entry: Entry, key: str) -> tuple[int, ...] | None:
    found = entry.get(key)
    if not isinstance(found, list):
        return None
    return tuple(read_integer({key: one}, key) for one in found)


def _read_category(entry: Entry) -> CategoryEntry:
    return CategoryEntry(
        read_integer(entry, "id"), str(entry["name"]), str(entry.get("frequency", ""))
    )
