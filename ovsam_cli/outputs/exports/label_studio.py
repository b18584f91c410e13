"""Tasks for Label Studio with brush predictions (`label-studio`), and its labeling interface.

People see each prediction, correct it and submit it. Masks are kept to the pixel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ovsam_cli import masks
from ovsam_cli.outputs.brush_runs import encode_brush_mask
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import (
    ExportCounter,
    ExportedObject,
    ExportSummary,
    dump_json,
)
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import write_small_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult

TASKS_FILE, INTERFACE_FILE = "tasks.json", "interface.xml"
IMAGE_TAG, BRUSH_TAG = "image", "brush"


@dataclass(frozen=True, slots=True)
class LabelStudioOptions:
    """What the tasks say besides the objects.

    Attributes:
        url_prefix: before the file name; Label Studio's local storage wants
            `/data/local-files/?d=FOLDER/`, a web server its address.
        model_version: shown with each prediction.
    """

    url_prefix: str = "/data/local-files/?d="
    model_version: str = "ovsam"


class LabelStudioWriter:
    """Writes a task for each image; made by `open_label_studio`."""

    def __init__(
        self, file: BinaryIO, categories: Sequence[CocoCategory], options: LabelStudioOptions
    ) -> None:
        self._file = file
        self._options = options
        self._counter = ExportCounter(categories)
        self._num_tasks = 0

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        # The browser asks for the file by its bytes, whatever they are.
        address = self._options.url_prefix + quote(os.fsencode(result.record.file_name))
        prediction: dict[str, JsonValue] = {
            "model_version": self._options.model_version,
            "score": sum(one.score for one in objects) / max(len(objects), 1),
            "result": [_make_region(one, result.original_hw) for one in objects],
        }
        task: dict[str, JsonValue] = {
            "data": {IMAGE_TAG: address, "image_id": result.record.image_id},
            "predictions": [prediction],
        }
        self._file.write((b",\n" if self._num_tasks else b"\n") + dump_json(task))
        self._num_tasks += 1


def _make_region(one: ExportedObject, original_hw: tuple[int, int]) -> dict[str, JsonValue]:
    height, width = original_hw
    return {
        "id": f"object{one.row}",
        "type": "brushlabels",
        "from_name": BRUSH_TAG,
        "to_name": IMAGE_TAG,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": one.score,
        "value": {
            "format": "rle",
            "rle": encode_brush_mask(masks.decode_mask(one.segmentation)),
            "brushlabels": [one.name],
        },
    }


@contextmanager
def open_label_studio(
    out: Path,
    categories: Sequence[CocoCategory],
    options: LabelStudioOptions,
    *,
    overwrite: bool = False,
) -> Iterator[LabelStudioWriter]:
    """Write tasks and the labeling interface to the folder `out`, which appears whole at the end.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        with open(folder / TASKS_FILE, "wb") as file:
            file.write(b"[")
            yield LabelStudioWriter(file, categories, options)
            file.write(b"\n]\n")
        write_small_file(folder / INTERFACE_FILE, make_interface(categories).encode())


def make_interface(categories: Sequence[CocoCategory]) -> str:
    """The labeling interface of a project that takes these tasks, as XML."""
    labels = "".join(f"    <Label value={quoteattr(one.name)}/>\n" for one in categories)
    return (
        f'<View>\n  <Image name="{IMAGE_TAG}" value="${IMAGE_TAG}" zoom="true"/>\n'
        f'  <BrushLabels name="{BRUSH_TAG}" toName="{IMAGE_TAG}">\n{labels}'
        "  </BrushLabels>\n</View>\n"
    )
