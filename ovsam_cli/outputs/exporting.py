"""What all export formats share: objects with their names, and the count of what got lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ovsam_cli import masks
from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.json_values import JsonValue, shortest_floats
from ovsam_cli.structures import Detections, ImageResult, Rle

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LOST_HOLES = "hole(s) that polygons cannot express"
_LOST_DETAILS = "object(s)' prompt, mask quality and other names"


@dataclass(frozen=True, slots=True)
class ExportedObject:
    """One object of an image, as every format needs it.

    Attributes:
        row: of the image's detections.
        category_id: as in the source.
        class_index: position of the category among the categories, from 0.
        name: of the category.
        score: in [0, 1].
        bbox: [x, y, width, height] in pixels of the upright image.
        area: pixels of the mask.
        segmentation: the mask.
    """

    row: int
    category_id: int
    class_index: int
    name: str
    score: float
    bbox: tuple[float, float, float, float]
    area: int
    segmentation: Rle

    @property
    def mask_json(self) -> dict[str, JsonValue]:
        """The mask as a COCO `segmentation`."""
        return {"size": list(self.segmentation["size"]), "counts": self.segmentation["counts"]}


@dataclass(frozen=True, slots=True)
class Loss:
    """Something a format could not take.

    Attributes:
        what: in words that follow a number.
        count: how often.
    """

    what: str
    count: int


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was exported.

    Attributes:
        num_images: images in the export, those without objects included.
        num_objects: objects in the export.
        num_failed: images left out because they failed: nothing is known of their objects.
        losses: what the format could not take; empty when all of the source is there.
    """

    num_images: int
    num_objects: int
    num_failed: int
    losses: tuple[Loss, ...]


class ExportWriter(Protocol):
    """Takes results one at a time, in the order of their image ids."""

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; a failed image is only counted.

        Raises:
            InputError: the format cannot take this image; says what to do.
            OutputError: the disk is full or gone.
        """


class ExportCounter:
    """Names the objects of results and counts them, and what of them gets lost."""

    def __init__(self, categories: Sequence[CocoCategory]) -> None:
        self._rows = {category.id: row for row, category in enumerate(categories)}
        self._names = [category.name for category in categories]
        self._losses: dict[str, int] = {}
        self._num_images = self._num_objects = self._num_failed = 0

    @property
    def summary(self) -> ExportSummary:
        """What was counted so far."""
        return ExportSummary(
            num_images=self._num_images,
            num_objects=self._num_objects,
            num_failed=self._num_failed,
            losses=tuple(Loss(what, count) for what, count in self._losses.items() if count),
        )

    def take(self, result: ImageResult) -> tuple[ExportedObject, ...] | None:
        """The objects of a result, counted; None for an image that failed.

        Raises:
            ValueError: a category is not among the source's.
        """
        if result.detections is None:
            self._num_failed += 1
            return None
        objects = tuple(self._iter_objects(result))
        self.lose(_LOST_DETAILS, _count_details(result.detections))
        self._num_images += 1
        self._num_objects += len(objects)
        return objects

    def lose(self, what: str, count: int = 1) -> None:
        """Count what the format cannot take.

        Args:
            what: in words that follow a number.
            count: how often.
        """
        self._losses[what] = self._losses.get(what, 0) + count

    def outline(self, segmentation: Rle) -> tuple[tuple[float, ...], ...]:
        """Polygons [x0, y0, ...] of a mask along its pixel edges, in pixels; holes are counted."""
        found = masks.mask_to_polygons(segmentation)
        self.lose(_LOST_HOLES, found.num_holes)
        return found.polygons

    def xml_text(self, text: str) -> str:
        """A text as XML can hold it; characters it forbids become "?", and are counted."""
        clean = _NOT_IN_XML.sub("?", text)
        self.lose("name(s) with characters that XML cannot hold", int(clean != text))
        return clean

    def _iter_objects(self, result: ImageResult) -> Iterator[ExportedObject]:
        found = result.detections
        assert found is not None  # failed results have no objects to name
        scores = shortest_floats(found.scores)
        boxes = masks.xyxy_to_xywh(found.boxes_xyxy)
        for row, category_id in enumerate(found.category_ids.tolist()):
            if category_id not in self._rows:
                raise ValueError(f"{result.record.file_name}: no category {category_id}")
            x, y, width, height = shortest_floats(boxes[row])
            yield ExportedObject(
                row=row,
                category_id=category_id,
                class_index=self._rows[category_id],
                name=self._names[self._rows[category_id]],
                score=scores[row],
                bbox=(x, y, width, height),
                area=int(found.areas[row]),
                segmentation=found.segmentations[row],
            )


def _count_details(found: Detections) -> int:
    """Objects of which more is known than these formats have a place for."""
    has_names = np.array([bool(names) for names in found.topk], bool)
    has_details = has_names | (found.margins != 0) | (found.stability_scores != 0)
    return int(has_details.sum())


def dump_json(value: Mapping[str, JsonValue] | Sequence[JsonValue]) -> bytes:
    """Compact ASCII JSON; file names that are not UTF-8 stand as \\udcXX and read back the same."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


class NameGuard:
    """Refuses images whose labels would overwrite one another's."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._owners: dict[str, str] = {}

    def claim(self, place: str, file_name: str) -> None:
        """Note that the labels of an image stand at `place`.

        Raises:
            InputError: those of another image stand there already.
        """
        # Some file systems take names for one that differ in case only.
        owner = self._owners.setdefault(place.casefold(), file_name)
        if owner != file_name:
            raise InputError(
                f"{self._form}: the labels of {owner!r} and {file_name!r} would both be "
                f"{place!r}, for this format leaves out the suffix of the image; rename one of "
                "the images, or choose a format of one file (coco, label-studio, cvat)"
            )
