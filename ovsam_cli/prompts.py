"""Prompts of a user's file, image by image, checked against the image they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.prompt_files.layouts import read_prompt_table
from ovsam_cli.prompt_files.table import PromptTable
from ovsam_cli.remote import parse_location
from ovsam_cli.run_lengths import count_mask_pixels
from ovsam_cli.structures import FloatArray, ImageRecord, IntArray, Prompts

# Detectors round outward; a box that sticks out no further than this is cut without a notice.
EDGE_TOLERANCE = 1.0
_AMBIGUOUS = -1


@dataclass(frozen=True, slots=True)
class PromptProblem:
    """What is wrong with a prompt.

    Attributes:
        prompt_id: of the prompt; None when the image as a whole is meant.
        file_name: the image's.
        message: in words, with the coordinates.
        dropped: True when the prompt was left out, False when it was mended or only looks odd.
    """

    prompt_id: int | str | None
    file_name: str
    message: str
    dropped: bool


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Prompts of many images; made by `read_prompts`.

    Attributes:
        spec: what the user gave.
        table: all prompts in file order.
        order: (N,) int64 rows of the table, grouped by image, file order within.
        offsets: (I + 1,) int64 where each image's rows begin in `order`.
        row_by_name: image row by file name.
        row_by_basename: the same by last part; -1 where several images share it.
    """

    spec: str
    table: PromptTable
    order: IntArray
    offsets: IntArray
    row_by_name: dict[str, int]
    row_by_basename: dict[str, int]

    @property
    def sha256(self) -> str:
        """Of the prompt file's bytes, hexadecimal."""
        return self.table.sha256

    @property
    def num_images(self) -> int:
        """Images the file names."""
        return len(self.table.file_names)

    @property
    def num_prompts(self) -> int:
        """Prompts of all images."""
        return len(self.table.prompt_ids)

    def for_image(
        self, record: ImageRecord, original_hw: tuple[int, int]
    ) -> tuple[Prompts, tuple[PromptProblem, ...]]:
        """The usable prompts of one image, and what is wrong with the others.

        The file's image is the one of the same `file_name`, else the only one of the same last
        part. Boxes are cut to the image; degenerate prompts and those out of the image are left
        out and reported.

        Args:
            record: the image.
            original_hw: (height, width) of the upright image.

        Returns:
            Prompts in original-frame pixels with image index 0, and the problems.
        """
        image_row = self._find_row(record.file_name)
        if image_row is None:
            return _take(self.table, np.empty(0, np.int64), original_hw), ()
        rows = self.order[self.offsets[image_row] : self.offsets[image_row + 1]]
        prompts = _take(self.table, rows, original_hw)
        problems = self._compare_size(image_row, record.file_name, original_hw)
        keep = np.ones(len(rows), bool)
        for index, has_box in enumerate(self.table.has_box[rows].tolist()):
            message = _find_fault(prompts, index, has_box, original_hw)
            keep[index] = message is None
            if message is None and has_box:
                message = _describe_cut(prompts.boxes_xyxy[index], original_hw)
            if message is not None:
                prompt_id, dropped = prompts.prompt_ids[index], not keep[index]
                problems.append(PromptProblem(prompt_id, record.file_name, message, dropped))
        kept = prompts.take(np.flatnonzero(keep))
        np.clip(kept.boxes_xyxy, 0, original_hw[::-1] * 2, out=kept.boxes_xyxy)
        return kept, tuple(problems)

    def count_for(self, record: ImageRecord) -> int:
        """How many prompts the file has for an image, usable or not."""
        row = self._find_row(record.file_name)
        return 0 if row is None else int(self.offsets[row + 1] - self.offsets[row])

    def take(self, records: Sequence[ImageRecord]) -> PromptSource:
        """Only the prompts of these images: small, for another process."""
        rows = {record.file_name: self._find_row(record.file_name) for record in records}
        named = {name: row for name, row in rows.items() if row is not None}
        parts = [self.order[self.offsets[row] : self.offsets[row + 1]] for row in named.values()]
        taken = np.concatenate([np.empty(0, np.int64), *parts])
        counts = [len(part) for part in parts]
        return replace(
            self,
            table=self.table.take(taken, tuple(named), list(named.values()), counts),
            order=np.arange(len(taken)),
            offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            row_by_name={name: row for row, name in enumerate(named)},
            row_by_basename={},
        )

    def matched_to(self, records: Sequence[ImageRecord]) -> PromptSource:
        """The same prompts, tied to exactly these images.

        Equal file names go first; what is left on both sides is tied by equal last parts. Only
        then can `x/a.jpg` not receive the prompts of `a.jpg` when both images are there.

        Raises:
            InputError: a name in the prompt file could mean several of the images.
        """
        return replace(self, row_by_name=self._match(records), row_by_basename={})

    def unmatched(self, records: Sequence[ImageRecord]) -> list[str]:
        """Names in the prompt file that belong to none of the images.

        Raises:
            InputError: a name could mean several of the images.
        """
        taken = set(self._match(records).values())
        return [name for row, name in enumerate(self.table.file_names) if row not in taken]

    def _match(self, records: Sequence[ImageRecord]) -> dict[str, int]:
        """Table row by the images' file names."""
        found = {
            record.file_name: self.row_by_name[record.file_name]
            for record in records
            if record.file_name in self.row_by_name
        }
        taken, tied = set(found.values()), dict[int, str]()
        for record in records:
            row = None if record.file_name in found else self._find_row(record.file_name)
            if row is None or row in taken:
                continue
            if row in tied:
                raise InputError(
                    f"{self.spec}: prompts for {self.table.file_names[row]!r} could mean "
                    f"{tied[row]!r} or {record.file_name!r}; use paths relative to the image folder"
                )
            tied[row] = record.file_name
        return found | {name: row for row, name in tied.items()}

    def _find_row(self, file_name: str) -> int | None:
        row = self.row_by_name.get(file_name)
        if row is None:
            row = self.row_by_basename.get(_last_part(file_name), _AMBIGUOUS)
        return None if row == _AMBIGUOUS else row

    def _compare_size(
        self, image_row: int, file_name: str, original_hw: tuple[int, int]
    ) -> list[PromptProblem]:
        height, width = self.table.declared_hw[image_row].tolist()
        if (height, width) in ((0, 0), original_hw) or self.table.coordinates == "relative":
            return []
        cause = "its EXIF orientation" if (width, height) == original_hw else "its size"
        message = (
            f"prompts were made for {width} x {height} pixels, the image has "
            f"{original_hw[1]} x {original_hw[0]}: check {cause}"
        )
        return [PromptProblem(None, file_name, message, dropped=False)]


def read_prompts(spec: str) -> PromptSource:
    """Read a prompt file.

    Args:
        spec: path or URL of our JSON or JSON Lines, of a COCO dataset or of a COCO results list; a
            results list without file names needs its dataset behind a colon,
            `results.json:dataset.json`.

    Raises:
        InputError: missing, malformed or of no known layout; names file and place.
    """
    path, dataset = parse_location(spec), None
    if isinstance(path, Path) and not path.exists() and ":" in spec:
        first, _, second = spec.rpartition(":")
        if Path(first).exists():
            path, dataset = Path(first), Path(second)
    table = read_prompt_table(path, dataset)
    order = np.argsort(table.image_row, kind="stable")
    counts = np.bincount(table.image_row, minlength=len(table.file_names))
    row_by_basename: dict[str, int] = {}
    for row, name in enumerate(table.file_names):
        basename = _last_part(name)
        row_by_basename[basename] = _AMBIGUOUS if basename in row_by_basename else row
    return PromptSource(
        spec=spec,
        table=table,
        order=order,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        row_by_name={name: row for row, name in enumerate(table.file_names)},
        row_by_basename=row_by_basename,
    )


def _last_part(file_name: str) -> str:
    return file_name.rpartition("/")[2]


def _take(table: PromptTable, rows: IntArray, original_hw: tuple[int, int]) -> Prompts:
    """Table rows as prompts in pixels; shorter point lists are filled with label -1."""
    ends = table.point_ends[rows]
    starts = np.where(rows > 0, table.point_ends[rows - 1], 0) if len(rows) else ends
    counts = ends - starts
    width = int(counts.max(initial=0))
    coords = np.zeros((len(rows), width, 2), np.float32)
    labels = np.full((len(rows), width), -1, np.int64)
    for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        coords[index, : end - start] = table.point_coords[start:end]
        labels[index, : end - start] = table.point_labels[start:end]
    scale = np.ones(2, np.float32)
    if table.coordinates == "relative":
        scale = np.array(original_hw[::-1], np.float32)
    boxes = np.where(table.has_box[rows, None], table.boxes_xyxy[rows], np.float32(np.nan))
    return Prompts(
        prompt_ids=tuple(table.prompt_ids[row] for row in rows.tolist()),
        image_index=np.zeros(len(rows), np.int64),
        point_coords=coords * scale,
        point_labels=labels,
        boxes_xyxy=boxes * np.tile(scale, 2),
        masks=tuple(table.masks.get(row) for row in rows.tolist()),
        prompt_scores=table.prompt_scores[rows],
    )


def _find_fault(
    prompts: Prompts, index: int, has_box: bool, original_hw: tuple[int, int]
) -> str | None:
    """Why a prompt cannot be used, or None."""
    height, width = original_hw
    if has_box:
        fault = _find_box_fault(prompts.boxes_xyxy[index], width, height)
        if fault is not None:
            return fault
    valid = prompts.point_labels[index] >= 0
    for x, y in prompts.point_coords[index][valid].tolist():
        if not (0 <= x <= width and 0 <= y <= height):
            return f"point ({x:g}, {y:g}) is not in the image of {width} x {height} pixels"
    mask = prompts.masks[index]
    if mask is not None and mask["size"] != [height, width]:
        return f"the mask has {mask['size']} rows and columns, the image {[height, width]}"
    if mask is not None and count_mask_pixels(mask) == 0:
        return "the mask is empty"
    if not has_box and mask is None and not (prompts.point_labels[index] == 1).any():
        return "all points are background (label 0); one must be on the object"
    return None


def _find_box_fault(box_xyxy: FloatArray, width: int, height: int) -> str | None:
    x0, y0, x1, y1 = box_xyxy.tolist()
    shown = f"box [{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
    if not np.isfinite(box_xyxy).all():
        return f"{shown} is not finite"
    if x1 <= x0 or y1 <= y0:
        return f"{shown} has no area; boxes are [x0, y0, x1, y1] with x0 < x1 and y0 < y1"
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        return f"{shown} is not in the image of {width} x {height} pixels"
    return None


def _describe_cut(box_xyxy: FloatArray, original_hw: tuple[int, int]) -> str | None:
    """A notice when a box sticks out of the image by more than a rounding."""
    height, width = original_hw
    x0, y0, x1, y1 = box_xyxy.tolist()
    if max(-x0, -y0, x1 - width, y1 - height) <= EDGE_TOLERANCE:
        return None
    return f"box [{x0:g}, {y0:g}, {x1:g}, {y1:g}] was cut to the image of {width} x {height} pixels"
