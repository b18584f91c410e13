"""Any COCO file as results, image by image, in memory that does not grow with its objects.

Objects stand in any order in such a file: they are written to a nameless file once, and read from
there image by image.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.masks import mask_areas
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.coco_objects import CocoObject, read_object, to_detections
from ovsam_cli.outputs.coco_values import Entry, as_entry, read_file_name, read_integer
from ovsam_cli.outputs.exporting import Loss
from ovsam_cli.prompt_files.json_stream import JsonFileError, JsonStream, open_json
from ovsam_cli.structures import ImageRecord, ImageResult, IntArray

_CROWDS = "crowd region(s), which are no single objects"
_EMPTY = "object(s) without a pixel in the image"
_NO_MASK = "object(s) without a mask: their box was taken for one"
_ATTRIBUTES = "object(s)' attributes"


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image of the file: `id` and (height, width) as in it."""

    id: int
    file_name: str
    original_hw: tuple[int, int]
    exif_orientation: int


class CocoSource:
    """Images, names and objects of a COCO file; made by `open_coco`.

    Attributes:
        categories: ids at least 1.
        description: of the file's `info`; empty where it has none.
    """

    def __init__(self, path: Path, image_root: Path) -> None:
        self._path = path
        self._image_root = image_root
        self.categories: tuple[CocoCategory, ...] = ()
        self.description = ""
        self._images: dict[int, CocoImage] = {}
        self._image_of, self._offsets = array("q"), array("q")
        self._objects: IO[bytes]
        self._losses: Counter[str] = Counter()
        self._shift_images = self._shift_categories = 0
        self._category_ids = frozenset[int]()

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What was passed over so far: crowds, objects without a mask."""
        return tuple(Loss(what, count) for what, count in self._losses.items() if count)

    @property
    def num_images(self) -> int:
        """Images in the file."""
        return len(self._images)

    def load(self, stream: JsonStream, objects: IO[bytes]) -> None:
        """Read the file to its end; objects go to a file beside.

        Raises:
            InputError: no COCO data set.
        """
        self._objects = objects
        found = set[str]()
        if stream.peek() != "{":
            raise self._error("is no COCO data set: expected an object with images and categories")
        for key in stream.iter_keys():
            found.add(key)
            if key == "images":
                self._take_images(stream)
            elif key == "annotations":
                self._take_annotations(stream)
            elif key == "categories":
                self.categories = self._read_categories(stream.take())
            elif key == "info":
                info = stream.take()
                self.description = (
                    str(info.get("description", "")) if isinstance(info, dict) else ""
                )
            else:
                stream.skip()
        missing = {"images", "annotations", "categories"} - found
        if missing:
            raise self._error(f"is no COCO data set: it has no {sorted(missing)[0]!r}")
        self._shift_ids()

    def iter_results(self) -> Iterator[ImageResult]:
        """Images with their objects, by rising image id.

        Raises:
            InputError: an object is malformed, or belongs to no image or category.
        """
        image_of = np.frombuffer(self._image_of, np.int64)
        offsets = np.frombuffer(self._offsets, np.int64)
        strangers = np.setdiff1d(image_of, np.fromiter(self._images, np.int64, len(self._images)))
        if len(strangers):
            raise self._error(f"annotations belong to image {strangers[0]}, which is not in it")
        order = np.argsort(image_of, kind="stable")
        ids = np.sort(np.fromiter(self._images, np.int64, len(self._images)))
        starts = np.searchsorted(image_of[order], ids, "left")
        ends = np.searchsorted(image_of[order], ids, "right")
        for image_id, start, end in zip(ids.tolist(), starts, ends, strict=True):
            yield self._make_result(self._images[image_id], offsets[order[start:end]])

    def _take_images(self, stream: JsonStream) -> None:
        for index, row in enumerate(stream.iter_items()):
            where = f"images[{index}]"
            entry = self._expect_object(row, where)
            image_id = self._expect_int(entry, "id", where)
            if image_id in self._images:
                raise self._error(f"{where}: the id {image_id} is there twice")
            try:
                name = read_file_name(entry)
            except ValueError as error:
                raise self._error(f"{where}: {error}") from error
            height, width = (self._expect_int(entry, key, where) for key in ("height", "width"))
            orientation = entry.get("exif_orientation")
            self._images[image_id] = CocoImage(
                image_id,
                name,
                (height, width),
                orientation if isinstance(orientation, int) else 1,
            )

    def _take_annotations(self, stream: JsonStream) -> None:
        for index, row in enumerate(stream.iter_items()):
            where = f"annotations[{index}]"
            entry = self._expect_object(row, where)
            self._image_of.append(self._expect_int(entry, "image_id", where))
            self._offsets.append(self._objects.tell())
            self._objects.write(json.dumps([index, entry]).encode() + b"\n")

    def _read_categories(self, rows: object) -> tuple[CocoCategory, ...]:
        if not isinstance(rows, list) or not rows:
            raise self._error("categories: expected a list with at least one name")
        found: dict[int, CocoCategory] = {}
        for index, row in enumerate(rows):
            where = f"categories[{index}]"
            entry = self._expect_object(row, where)
            category_id = self._expect_int(entry, "id", where)
            name, frequency = entry.get("name"), entry.get("frequency", "")
            if not isinstance(name, str) or not name or category_id in found:
                raise self._error(f"{where}: expected a name, and an id of its own")
            group = entry.get("supercategory")
            found[category_id] = CocoCategory(
                category_id, name, group if isinstance(group, str) else "object", str(frequency)
            )
        return tuple(found.values())

    def _shift_ids(self) -> None:
        """Let ids begin at 1: some programs count from 0, which COCO's evaluation cannot take."""
        self._shift_images = max(0, 1 - min(self._images, default=1))
        shift = max(0, 1 - min(one.id for one in self.categories))
        self.categories = tuple(replace(one, id=one.id + shift) for one in self.categories)
        self._category_ids = frozenset(one.id for one in self.categories)
        self._shift_categories = shift

    def _make_result(self, image: CocoImage, offsets: IntArray) -> ImageResult:
        found = [self._read_object(image, offset) for offset in offsets.tolist()]
        objects = [one for one in found if one is not None]
        image_id = image.id + self._shift_images
        return ImageResult(
            ImageRecord(self._image_root / image.file_name, image.file_name, image_id),
            "ok" if objects else "empty",
            image.original_hw,
            image.exif_orientation,
            to_detections(objects),
        )

    def _read_object(self, image: CocoImage, offset: int) -> CocoObject | None:
        """One object; None for one that is passed over, which is counted."""
        self._objects.seek(offset)
        index, entry = json.loads(self._objects.readline())
        where = f"annotations[{index}]"
        category_id = self._expect_int(entry, "category_id", where) + self._shift_categories
        if category_id not in self._category_ids:
            raise self._error(f"{where}: its category is not in the file")
        if entry.get("iscrowd"):
            self._losses[_CROWDS] += 1
            return None
        try:
            found = read_object(entry, index, category_id, image.original_hw)
        except ValueError as error:
            raise self._error(f"{where}: {error}") from error
        if not mask_areas([found.segmentation])[0]:
            self._losses[_EMPTY] += 1
            return None
        self._losses[_NO_MASK] += found.is_box
        self._losses[_ATTRIBUTES] += bool(entry.get("attributes"))
        return found

    def _expect_object(self, row: object, where: str) -> Entry:
        try:
            return as_entry(row)
        except TypeError as error:
            raise self._error(f"{where}: {error}") from error

    def _expect_int(self, entry: Entry, key: str, where: str) -> int:
        try:
            return read_integer({key: entry.get(key)}, key)
        except ValueError as error:
            raise self._error(f"{where}: {error}") from error

    def _error(self, text: str) -> InputError:
        return InputError(f"{self._path}: {text}")


@contextmanager
def open_coco(path: Path, *, image_root: Path | None = None) -> Iterator[CocoSource]:
    """Read a COCO data set with polygons or run lengths.

    Args:
        path: the file.
        image_root: folder its file names are relative to; None is the file's own folder.

    Raises:
        InputError: it cannot be read, or is no such file; says where.
    """
    source = CocoSource(path, path.parent if image_root is None else image_root)
    with tempfile.TemporaryFile() as objects:
        try:
            with open_json(path) as stream:
                source.load(stream, objects)
        except JsonFileError as error:
            raise InputError(
                f"{path}: is not JSON: {error} (line {error.line}, column {error.column})"
            ) from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON: {error}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        yield source
