"""YOLO data sets (`yolo-seg`, `yolo-box`): a text file of labels for each image, and `data.yaml`.

The layout is that of ultralytics: `images/train/x.jpg` has its labels in `labels/train/x.txt`, one
object a line: the class from 0, then numbers relative to the image's size. An image without
objects has an empty file: without one it would count as not labelled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import (
    ExportCounter,
    ExportedObject,
    ExportSummary,
    NameGuard,
)
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import (
    ImageSource,
    check_file_name,
    make_folder,
    write_small_file,
)
from ovsam_cli.structures import ImageResult

Split = Literal["train", "val"]
DATA_FILE = "data.yaml"
# Suffixes that ultralytics opens; it passes over other files.
KNOWN_SUFFIXES = {
    *(".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpeg2000", ".jpg", ".mpo"),
    *(".pfm", ".png", ".tif", ".tiff", ".webp"),
}


@dataclass(frozen=True, slots=True)
class YoloOptions:
    """How the data set is laid out.

    Attributes:
        shapes: `polygons` of the masks, or `boxes`.
        val_share: share of the images for validation, in [0, 1).
        seed: another seed gives another split; an image's part does not depend on the others.
        images: where they are and how they get into the data set.
    """

    shapes: Literal["polygons", "boxes"] = "polygons"
    val_share: float = 0.1
    seed: int = 0
    images: ImageSource = field(default_factory=ImageSource)


class YoloWriter:
    """Writes a label file for each image; made by `open_yolo`."""

    def __init__(
        self, folder: Path, categories: Sequence[CocoCategory], options: YoloOptions
    ) -> None:
        self._folder = folder
        self._names = [category.name for category in categories]
        self._options = options
        self._counter = ExportCounter(categories)
        self._guard = NameGuard("yolo")
        self._used: set[Split] = set()

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        name = check_file_name(result.record)
        split = choose_split(result.record.file_name, self._options.val_share, self._options.seed)
        image = f"images/{split}/{name}"
        place = find_label_place(image)
        self._guard.claim(place, result.record.file_name)
        if name.suffix.lower() not in KNOWN_SUFFIXES:
            self._counter.lose("image(s) of a kind that ultralytics passes over")
        self._counter.lose("score(s)", len(objects))
        if self._options.shapes == "boxes":
            self._counter.lose("mask(s)", len(objects))
        height, width = result.original_hw
        lines = [line for one in objects for line in self._lines(one, width, height)]
        text = "".join(f"{line}\n" for line in lines)
        write_small_file(self._folder / place, text.encode())
        self._options.images.place(result.record, self._folder / image)
        self._used.add(split)

    def finish(self) -> None:
        """Write `data.yaml`.

        Raises:
            OutputError: the disk is full or gone.
        """
        for split in ("train", "val"):
            make_folder(self._folder / "images" / split)
            make_folder(self._folder / "labels" / split)
        # Without `path`, ultralytics takes the folder of this file. Training needs both entries.
        val = "val" if "val" in self._used else "train"
        train = "train" if "train" in self._used else "val"
        rows = [f"train: images/{train}", f"val: images/{val}", "names:"]
        rows += [
            # JSON strings are YAML strings too, whatever a name holds.
            f"  {index}: {json.dumps(name, ensure_ascii=False)}"
            for index, name in enumerate(self._names)
        ]
        write_small_file(self._folder / DATA_FILE, ("\n".join(rows) + "\n").encode())

    def _lines(self, one: ExportedObject, width: int, height: int) -> Iterator[str]:
        if self._options.shapes == "boxes":
            x, y, box_width, box_height = one.bbox
            values = [x + box_width / 2, y + box_height / 2, box_width, box_height]
        else:
            polygons = self._counter.outline(one.segmentation)
            values = join_polygons(polygons)
        scaled = (value / (height if index % 2 else width) for index, value in enumerate(values))
        # Nine digits: a millionth of a pixel in the largest images.
        yield " ".join([str(one.class_index), *(f"{value:.9g}" for value in scaled)])


@contextmanager
def open_yolo(
    out: Path,
    categories: Sequence[CocoCategory],
    options: YoloOptions,
    *,
    overwrite: bool = False,
) -> Iterator[YoloWriter]:
    """Write a YOLO data set to the folder `out`, which appears whole when the block ends well.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        writer = YoloWriter(folder, categories, options)
        yield writer
        writer.finish()


def choose_split(file_name: str, val_share: float, seed: int) -> Split:
    """Whether an image is for training or validation, by a hash of its name and the seed."""
    digest = hashlib.sha256(b"%d\0" % seed + os.fsencode(file_name)).digest()
    return "val" if int.from_bytes(digest[:8], "big") / 2**64 < val_share else "train"


def find_label_place(image: str) -> str:
    """Where ultralytics looks for the labels of an image: the last `images` becomes `labels`."""
    head, _, tail = f"/{image}".rpartition("/images/")
    stem, _, _ = tail.rpartition(".") if "." in tail.rpartition("/")[2] else (tail, "", "")
    return f"{head}/labels/{stem}.txt".lstrip("/")


def join_polygons(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One polygon [x0, y0, ...] around all parts of a mask, as a YOLO line has only one.

    Each further part is entered and left by the same line from the nearest corner, which covers no
    area: filling the joined polygon gives the same pixels.
    """
    first, *others = (np.reshape(polygon, (-1, 2)) for polygon in polygons)
    joined = first
    for part in others:
        gaps = ((joined[:, None] - part[None]) ** 2).sum(axis=2)
        here, there = divmod(int(gaps.argmin()), len(part))
        turned = np.concatenate([part[there:], part[: there + 1]])
        joined = np.concatenate([joined[: here + 1], turned, joined[here:]])
    values: list[float] = joined.ravel().tolist()
    return values
