"""Prompts of many images in a few arrays, and how they get there one by one.

A million prompts are some tens of megabytes here, not a million dictionaries.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.structures import BoolArray, FloatArray, IntArray, Rle

Coordinates = Literal["absolute", "relative"]

FORMAT_NAME = "ovsam-prompts"
PROMPT_KEYS = frozenset({"id", "points", "labels", "box", "mask", "score"})
# A fraction may stick out a little, as a box at the edge does; pixels are soon larger.
MAX_RELATIVE = 1.5


@dataclass(frozen=True, slots=True)
class PromptTable:
    """All N prompts of a file, with their P points, in file order.

    Attributes:
        sha256: of the file's bytes (both files' when there are two).
        coordinates: pixels of the upright image, or fractions of its width and height.
        file_names: (I,) the images named, in order of appearance.
        declared_hw: (I, 2) int64 size the file gives for each image; zeros where it does not.
        image_row: (N,) int64 row of `file_names`.
        prompt_ids: (N,) ids.
        boxes_xyxy: (N, 4) float32; meaningless where `has_box` is False.
        has_box: (N,) bool.
        point_ends: (N,) int64, where each prompt's points end in the two arrays below.
        point_coords: (P, 2) float32.
        point_labels: (P,) int64, 1 or 0.
        prompt_scores: (N,) float32, NaN where there is none.
        masks: RLE by prompt row, for those that have one.
    """

    sha256: str
    coordinates: Coordinates
    file_names: tuple[str, ...]
    declared_hw: IntArray
    image_row: IntArray
    prompt_ids: tuple[int | str, ...]
    boxes_xyxy: FloatArray
    has_box: BoolArray
    point_ends: IntArray
    point_coords: FloatArray
    point_labels: IntArray
    prompt_scores: FloatArray
    masks: Mapping[int, Rle]

    def take(
        self,
        rows: IntArray,
        file_names: tuple[str, ...],
        image_rows: Sequence[int],
        counts: Sequence[int],
    ) -> PromptTable:
        """Some prompts, grouped by image.

        Args:
            rows: (n,) int64 of the prompts, image by image.
            file_names: (i,) names for the images.
            image_rows: (i,) which images of this table they are.
            counts: (i,) how many of `rows` belong to each.
        """
        starts = np.where(rows > 0, self.point_ends[rows - 1], 0)
        points = [np.arange(*ends) for ends in zip(starts, self.point_ends[rows], strict=True)]
        taken = np.concatenate([np.empty(0, np.int64), *points])
        return PromptTable(
            sha256=self.sha256,
            coordinates=self.coordinates,
            file_names=file_names,
            declared_hw=self.declared_hw[np.asarray(image_rows, np.int64)],
            image_row=np.repeat(np.arange(len(file_names)), counts),
            prompt_ids=tuple(self.prompt_ids[row] for row in rows.tolist()),
            boxes_xyxy=self.boxes_xyxy[rows],
            has_box=self.has_box[rows],
            point_ends=np.cumsum([len(of_one) for of_one in points], dtype=np.int64),
            point_coords=self.point_coords[taken],
            point_labels=self.point_labels[taken],
            prompt_scores=self.prompt_scores[rows],
            masks={
                new: self.masks[row] for new, row in enumerate(rows.tolist()) if row in self.masks
            },
        )


class TableBuilder:
    """Collects prompts in compact arrays while a file is read; its errors name the place."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.coordinates: Coordinates = "absolute"
        self.rows: dict[str, int] = {}
        self.sizes = array("q")
        self.num_in_image = array("q")
        self.image_row = array("q")
        self.ids: list[int | str] = []
        self.boxes = array("d")
        self.has_box = array("b")
        self.points = array("d")
        self.labels = array("b")
        self.point_ends = array("q")
        self.scores = array("d")
        self.masks: dict[int, Rle] = {}

    def error(self, where: str, message: str) -> InputError:
        return InputError(f"{self.path}:{where}: {message}" if where else f"{self.path}: {message}")

    def parse(self, content: bytes, where: str) -> object:
        try:
            value: object = json.loads(content)
        except json.JSONDecodeError as error:
            line = where or str(error.lineno)
            raise self.error(line, f"not valid JSON: {error.msg} (column {error.colno})") from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise self.error(where, f"not valid JSON: {error}") from error
        return value

    def as_object(self, value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self.error(where, f"expected an object, found {_shorten(value)}")
        return value

    def as_list(self, value: object, where: str) -> list[object]:
        if not isinstance(value, list):
            raise self.error(where, f"expected a list, found {_shorten(value)}")
        return value

    def check_keys(self, entry: dict[str, object], known: frozenset[str], where: str) -> None:
        for key in entry.keys() - known:
            hint = "; a box is [x0, y0, x1, y1] under 'box'" if key == "bbox" else ""
            raise self.error(where, f"unknown key {key!r}; known: {', '.join(sorted(known))}{hint}")

    def set_header(self, header: dict[str, object], where: str) -> None:
        found = header.get("format", FORMAT_NAME)
        if found != FORMAT_NAME:
            raise self.error(where, f"format is {found!r}, expected {FORMAT_NAME!r}")
        coordinates = header.get("coordinates", "absolute")
        if coordinates not in ("absolute", "relative"):
            raise self.error(
                where, f"coordinates are {coordinates!r}, expected 'absolute' or 'relative'"
            )
        self.coordinates = coordinates

    def image(self, name: object, where: str, entry: Mapping[str, object]) -> int:
        """The row of an image, new or met before; `entry` may hold its width and height."""
        if not isinstance(name, str) or not name:
            raise self.error(where, f"file_name is {_shorten(name)}, expected a path")
        row = self.rows.setdefault(name.removeprefix("./"), len(self.rows))
        if row == len(self.num_in_image):
            self.num_in_image.append(0)
            for side in (entry.get("height"), entry.get("width")):
                self.sizes.append(side if isinstance(side, int) else 0)
        return row

    def add_prompt(self, row: int, entry: dict[str, object], where: str) -> None:
        self.check_keys(entry, PROMPT_KEYS, where)
        box, points, mask = entry.get("box"), entry.get("points"), entry.get("mask")
        if box is None and not points and mask is None:
            raise self.error(where, "a prompt needs a box, points or a mask")
        self._add_points([] if points is None else points, entry.get("labels"), where)
        self._add_numbers(self.boxes, [0, 0, 0, 0] if box is None else box, 4, where)
        self.has_box.append(box is not None)
        if mask is not None:
            try:
                self.masks[len(self.ids)] = read_segmentation(mask)
            except ValueError as error:
                raise self.error(where, str(error)) from error
        score = entry.get("score")
        self._add_numbers(self.scores, [float("nan") if score is None else score], 1, where)
        self.num_in_image[row] += 1
        found = entry.get("id")
        prompt_id = self.num_in_image[row] if found is None else found
        if type(prompt_id) is not int and not isinstance(prompt_id, str):
            raise self.error(where, f"id is {_shorten(prompt_id)}, expected an integer or a text")
        self.ids.append(prompt_id)
        self.image_row.append(row)

    def _add_points(self, value: object, labels: object, where: str) -> None:
        points = self.as_list(value, f"{where}.points")
        for point in points:
            self._add_numbers(self.points, point, 2, f"{where}.points")
        chosen = [1] * len(points) if labels is None else self.as_list(labels, f"{where}.labels")
        if len(chosen) != len(points) or any(label not in (0, 1) for label in chosen):
            raise self.error(
                where, f"labels are {_shorten(labels)}, expected {len(points)} of 1 or 0"
            )
        self.labels.extend(1 if label else 0 for label in chosen)
        self.point_ends.append(len(self.labels))

    def _add_numbers(self, target: array[float], value: object, count: int, where: str) -> None:
        if not isinstance(value, list) or len(value) != count:
            raise self.error(where, f"expected {count} numbers, found {_shorten(value)}")
        try:
            target.extend(value)
        except TypeError as error:
            raise self.error(where, f"expected {count} numbers, found {_shorten(value)}") from error

    def finish(self, sha256: str) -> PromptTable:
        """The table of everything added.

        Raises:
            InputError: no image, an id twice in an image, or coordinates that cannot be what
                the file says they are.
        """
        if not self.rows:
            raise self.error("", "no prompts in this file")
        table = PromptTable(
            sha256=sha256,
            coordinates=self.coordinates,
            file_names=tuple(self.rows),
            declared_hw=np.array(self.sizes, np.int64).reshape(-1, 2),
            image_row=np.array(self.image_row, np.int64),
            prompt_ids=tuple(self.ids),
            boxes_xyxy=np.array(self.boxes, np.float32).reshape(-1, 4),
            has_box=np.array(self.has_box, bool),
            point_ends=np.array(self.point_ends, np.int64),
            point_coords=np.array(self.points, np.float32).reshape(-1, 2),
            point_labels=np.array(self.labels, np.int64),
            prompt_scores=np.array(self.scores, np.float32),
            masks=self.masks,
        )
        self._check_ids(table)
        self._check_range(table)
        return table

    def _check_ids(self, table: PromptTable) -> None:
        order = np.argsort(table.image_row, kind="stable")
        previous, seen = -1, set[int | str]()
        for row in order.tolist():
            if (image := int(table.image_row[row])) != previous:
                previous, seen = image, set()
            if (prompt_id := table.prompt_ids[row]) in seen:
                name = table.file_names[image]
                raise self.error("", f"{name}: prompt id {prompt_id!r} stands twice")
            seen.add(prompt_id)

    def _check_range(self, table: PromptTable) -> None:
        """Coordinates of the wrong kind would label nonsense without any other sign."""
        boxes = np.where(table.has_box[:, None], table.boxes_xyxy, np.nan)
        values = np.concatenate([boxes.ravel(), table.point_coords.ravel()])
        values = values[np.isfinite(values)]
        if not values.size:
            return
        largest = float(values.max())
        if table.coordinates == "relative" and largest > MAX_RELATIVE:
            raise self.error(
                "",
                f"coordinates are declared relative, but one is {largest:g}; "
                'pixels need "coordinates": "absolute"',
            )
        if table.coordinates == "absolute" and largest <= 1:
            raise self.error(
                "",
                f"no coordinate is larger than {largest:g}, so these are not pixels; "
                'fractions of the image need "coordinates": "relative"',
            )


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
