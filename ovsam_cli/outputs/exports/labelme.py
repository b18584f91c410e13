"""One JSON file beside each image (`labelme`, `x-anylabeling`), for correcting labels by hand.

labelme holds masks as such, without loss. X-AnyLabeling edits polygons: the parts of one object
share a `group_id`, holes are lost and counted; its entries have the score too.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image

from ovsam_cli import masks
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import (
    ExportCounter,
    ExportedObject,
    ExportSummary,
    NameGuard,
)
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import ImageSource, check_file_name, write_small_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult

Program = Literal["labelme", "x-anylabeling"]
# The versions whose file format this is.
LABELME_VERSION, ANYLABELING_VERSION = "5.5.0", "2.4.4"


class LabelmeWriter:
    """Writes a JSON file for each image; made by `open_labelme`."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        categories: Sequence[CocoCategory],
        images: ImageSource,
        program: Program,
    ) -> None:
        self._folder, self._out = folder, out
        self._images = images
        self._program = program
        self._counter = ExportCounter(categories)
        self._guard = NameGuard(program)

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        name = check_file_name(result.record)
        place = str(name.with_suffix(".json"))
        self._guard.claim(place, result.record.file_name)
        height, width = result.original_hw
        is_labelme = self._program == "labelme"
        shapes = [shape for one in objects for shape in self._shapes(one)]
        file: dict[str, JsonValue] = {
            "version": LABELME_VERSION if is_labelme else ANYLABELING_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": self._image_path(result, place),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        text = json.dumps(file, allow_nan=False, indent=1)
        write_small_file(self._folder / place, text.encode("ascii") + b"\n")
        self._images.place(result.record, self._folder / name)

    def _image_path(self, result: ImageResult, place: str) -> str:
        """The image as seen from its JSON file."""
        if self._images.mode != "none":
            return Path(result.record.file_name).name
        image = self._images.find(result.record)
        folder = os.path.dirname(os.path.abspath(self._out / place))
        return os.path.relpath(os.path.abspath(image), folder).replace(os.sep, "/")

    def _shapes(self, one: ExportedObject) -> Iterator[dict[str, JsonValue]]:
        if self._program == "labelme":
            yield _make_mask_shape(one)
            return
        polygons = self._counter.outline(one.segmentation)
        for polygon in polygons:
            points = [list(point) for point in zip(polygon[::2], polygon[1::2], strict=True)]
            yield {
                "label": one.name,
                "score": one.score,
                "points": points,
                "group_id": one.row if len(polygons) > 1 else None,
                "description": "",
                "difficult": False,
                "shape_type": "polygon",
                "flags": {},
                "attributes": {},
                "kie_linking": [],
            }


def _make_mask_shape(one: ExportedObject) -> dict[str, JsonValue]:
    """A shape of labelme: the mask cut to its box, as a picture of one bit a pixel."""
    x, y, width, height = (int(value) for value in one.bbox)
    cut = masks.decode_mask(one.segmentation)[y : y + height, x : x + width]
    file = BytesIO()
    Image.fromarray(cut).save(file, "PNG")
    return {
        "label": one.name,
        "points": [[x, y], [x + width - 1, y + height - 1]],  # labelme includes the last pixel
        "group_id": None,
        "description": f"score {one.score:.3f}",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(file.getvalue()).decode("ascii"),
    }


@contextmanager
def open_labelme(
    out: Path,
    categories: Sequence[CocoCategory],
    images: ImageSource,
    program: Program,
    *,
    overwrite: bool = False,
) -> Iterator[LabelmeWriter]:
    """Write files of labelme or X-AnyLabeling to `out`, which appears whole at the end.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        yield LabelmeWriter(folder, out, categories, images, program)
