"""Annotated images one at a time: objects stand in a file, not in memory; no torch."""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.evaluation.coco_entries import (
    ImageEntry,
    Tables,
    iter_annotations,
    open_coco,
    read_tables,
)
from ovsam_cli.evaluation.datasets import EXAMPLE, WHAT, Instance, InstanceImage, find_image
from ovsam_cli.evaluation.datasets import read_instance as parse_instance
from ovsam_cli.masks import mask_areas
from ovsam_cli.outputs.coco_values import read_integer, read_mask
from ovsam_cli.prompt_files.json_stream import JsonStream
from ovsam_cli.structures import ImageRecord

KEPT_KEYS = ("id", "category_id", "segmentation", "bbox")
NO_CATEGORY = 0  # of masks without names, as SA-1B's


class InstanceSource(Protocol):
    """Annotated images of a data set.

    Attributes:
        name: of the file or folder, for a person.
        sha256: of the annotations; of a folder, of its list of files.
        category_names, frequencies: of each category id; no names for masks alone.
    """

    name: str
    sha256: str
    category_names: dict[int, str]
    frequencies: dict[int, str]

    @property
    def records(self) -> Sequence[ImageRecord]:
        """The images that have objects."""

    def load(self, row: int) -> InstanceImage:
        """Image `row` of the records with its objects.

        Raises:
            InputError, ImageError: its annotations cannot be read.
        """


@dataclass(frozen=True, slots=True)
class _Place:
    """An image and where its objects stand."""

    entry: ImageEntry
    offsets: array[int]


class InstanceStore:
    """A COCO or LVIS file, read once, its objects put aside into a temporary file.

    Crowds are left out. Memory holds eight bytes an object.

    Args:
        annotations: the file.
        image_folder: as of `datasets.read_instances`.
        keep: ids of the categories whose objects count; None keeps all.
        max_images: the first ones that count; None takes all.
        keeps_empty: images without objects count as well: what is found there is wrong.

    Raises:
        InputError: the file cannot be read, is not of this form, or has no objects.
    """

    def __init__(
        self,
        annotations: Path,
        image_folder: Path,
        *,
        keep: frozenset[int] | None = None,
        max_images: int | None = None,
        keeps_empty: bool = False,
    ) -> None:
        self.source = annotations
        self.name = annotations.name
        self._file = tempfile.TemporaryFile()
        weakref.finalize(self, self._file.close)
        with open_coco(annotations, WHAT, EXAMPLE) as stream:
            digest = hashlib.sha256()
            stream.hash_into(digest.update)
            self.sha256 = digest.hexdigest()
            tables = read_tables(stream)
            offsets = self._put_aside(stream, tables, keep)
        self.category_names = tables.category_names
        self.frequencies = {one.id: one.frequency for one in tables.categories}
        places = [
            _Place(entry, offsets[entry.image_id])
            for entry in tables.images
            if keeps_empty or offsets[entry.image_id]
        ][:max_images]
        if not any(offsets.values()):
            raise InputError(
                f"{annotations}: no image has an object that counts; give a file with annotations "
                "of the categories that are evaluated"
            )
        self._places = places
        self.records: tuple[ImageRecord, ...] = tuple(
            ImageRecord(
                find_image(image_folder, one.entry), one.entry.file.as_posix(), one.entry.image_id
            )
            for one in places
        )

    def load(self, row: int) -> InstanceImage:
        """Image `row` of the records with its objects that have pixels.

        Raises:
            InputError: a mask is malformed.
        """
        place, found = self._places[row], []
        for offset in place.offsets:
            self._file.seek(offset)
            entry = json.loads(self._file.readline())
            try:
                found.append(parse_instance(entry, place.entry.original_hw, self.category_names))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.source}: annotation {entry.get('id')} cannot be used "
                    f"({type(error).__name__}: {error})"
                ) from error
        return InstanceImage(
            path=Path(self.records[row].path),
            image_id=place.entry.image_id,
            original_hw=place.entry.original_hw,
            instances=tuple(one for one in found if one is not None),
        )

    def _put_aside(
        self, stream: JsonStream, tables: Tables, keep: frozenset[int] | None
    ) -> dict[int, array[int]]:
        """Copy objects that count to the temporary file; their offsets by image id."""
        offsets: dict[int, array[int]] = {one.image_id: array("q") for one in tables.images}
        names = tables.category_names
        for entry in iter_annotations(stream):
            category_id = read_integer(entry, "category_id")
            if category_id not in names:
                raise ValueError(f"annotation {entry.get('id')}: no category {category_id}")
            is_left_out = keep is not None and category_id not in keep
            if entry.get("iscrowd", 0) or is_left_out:
                continue
            offsets[read_integer(entry, "image_id")].append(self._file.tell())
            kept = {key: entry[key] for key in KEPT_KEYS if key in entry}
            self._file.write(json.dumps(kept).encode() + b"\n")
        return offsets


class Sa1bStore:
    """A folder of SA-1B: `sa_*.jpg`, each with its masks in `sa_*.json`; no names.

    Args:
        folder: searched with all folders in it.
        max_images: the first ones; None takes all.

    Raises:
        InputError: no such images.
    """

    def __init__(self, folder: Path, *, max_images: int | None = None) -> None:
        self.name = folder.name
        paths = sorted(folder.rglob("sa_*.json"))[:max_images]
        if not paths:
            raise InputError(f"{folder}: no sa_*.json in it or its folders")
        self.records: tuple[ImageRecord, ...] = tuple(
            ImageRecord(path.with_suffix(".jpg"), name.removesuffix(".json") + ".jpg", number)
            for number, path in enumerate(paths, 1)
            if (name := path.relative_to(folder).as_posix())
        )
        names = "\n".join(record.file_name for record in self.records)
        self.sha256 = hashlib.sha256(names.encode()).hexdigest()
        self.category_names: dict[int, str] = {}
        self.frequencies: dict[int, str] = {}

    def load(self, row: int) -> InstanceImage:
        """Image `row` of the records with its masks.

        Raises:
            ImageError: they cannot be read.
        """
        record = self.records[row]
        image = Path(record.path)
        path = image.with_suffix(".json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            hw = (int(content["image"]["height"]), int(content["image"]["width"]))
            masks = [read_mask(one, hw) for one in content["annotations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(
                f"{path}: its masks cannot be read ({type(error).__name__}: {error})",
                reason="bad_masks",
            ) from error
        areas = mask_areas(masks).tolist()
        instances = [
            Instance(number, NO_CATEGORY, mask, area)
            for number, (mask, area) in enumerate(zip(masks, areas, strict=True), 1)
            if area
        ]
        return InstanceImage(image, record.image_id, hw, tuple(instances))
