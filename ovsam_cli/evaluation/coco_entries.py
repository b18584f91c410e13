"""One entry of a COCO or LVIS file at a time, checked; no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovsam_cli.errors import InputError
from ovsam_cli.masks import encode_polygons
from ovsam_cli.prompt_files.json_stream import JsonStream, open_json
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.structures import Rle

Entry = dict[str, object]


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


def as_entry(value: object) -> Entry:
    """The value, an object.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is no object")
    return value


def read_integer(entry: Mapping[str, object], key: str) -> int:
    """A whole number; some exporters write 640.0.

    Raises:
        ValueError: it is none.
    """
    value = entry[key]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} {value!r:.80} is no whole number")
    return value


def read_number(entry: Mapping[str, object], key: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} {value!r:.80} is no number")
    return float(value)


def read_box(entry: Mapping[str, object]) -> tuple[float, float, float, float] | None:
    """`bbox`, x y width height in original pixels; None where there is none.

    Raises:
        ValueError: not four numbers.
    """
    found = entry.get("bbox")
    if found is None or found == []:
        return None
    if not isinstance(found, list) or len(found) != 4:
        raise ValueError(f"bbox {found!r:.80} is not [x, y, width, height]")
    x, y, width, height = (read_number({"bbox": side}, "bbox") for side in found)
    return x, y, width, height


def read_mask(entry: Mapping[str, object], original_hw: tuple[int, int]) -> Rle:
    """`segmentation`, polygons or run lengths, as an RLE of the image's size.

    Raises:
        ValueError: it is malformed, or of another size.
    """
    found = entry["segmentation"]
    if isinstance(found, list):
        return encode_polygons(found, original_hw)
    segmentation = read_segmentation(found)
    if tuple(segmentation["size"]) != original_hw:
        raise ValueError(
            f"annotation {entry.get('id')}: mask {segmentation['size']}, image {original_hw}"
        )
    return segmentation


def _read_image(entry: Entry) -> ImageEntry:
    is_lvis = "file_name" not in entry
    if is_lvis:
        *_, folder, name = PurePosixPath(str(entry["coco_url"])).parts
        file = PurePosixPath(folder, name)
    else:
        file = PurePosixPath(str(entry["file_name"]))
    return ImageEntry(
        image_id=read_integer(entry, "id"),
        original_hw=(read_integer(entry, "height"), read_integer(entry, "width")),
        file=file,
        is_lvis=is_lvis,
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
