"""An LVIS data set (`lvis`): what lvis-api and LVIS data loaders read.

LVIS is federated: a category is judged only in images where it is known to be complete or absent.
A model's labels promise neither, so every category found in an image is listed there under
`not_exhaustive_category_ids`, and none under `neg_category_ids`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import ExportCounter, ExportSummary, dump_json
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult

# LVIS's own groups, by the number of images a category is in (Gupta et al. 2019, section 4).
RARE_IMAGES, COMMON_IMAGES = 10, 100


class LvisWriter:
    """Writes images and objects; made by `open_lvis`."""

    def __init__(
        self, file: BinaryIO, images: IO[bytes], categories: Sequence[CocoCategory]
    ) -> None:
        self._file = file
        self._images = images
        self._categories = tuple(categories)
        self._counter = ExportCounter(categories)
        self._num_images = self._num_objects = 0
        self._images_with: Counter[int] = Counter()
        self._objects_of: Counter[int] = Counter()

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        found = sorted({one.category_id for one in objects})
        height, width = result.original_hw
        image: dict[str, JsonValue] = {
            "id": result.record.image_id,
            "file_name": result.record.file_name,
            "coco_url": result.record.file_name,
            "width": width,
            "height": height,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": found,
        }
        self._images.write((b",\n" if self._num_images else b"\n") + dump_json(image))
        self._num_images += 1
        for one in objects:
            row: dict[str, JsonValue] = {
                "id": self._num_objects + 1,
                "image_id": result.record.image_id,
                "category_id": one.category_id,
                "bbox": list(one.bbox),
                "area": float(one.area),
                "segmentation": one.mask_json,
                "score": one.score,
            }
            self._file.write((b",\n" if self._num_objects else b"\n") + dump_json(row))
            self._num_objects += 1
        self._images_with.update(found)
        self._objects_of.update(one.category_id for one in objects)

    def finish(self) -> None:
        """Write the images and the categories, whose counts are known only now."""
        self._file.write(b'\n],\n"images":[')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file)
        self._file.write(b'\n],\n"categories":[\n')
        rows = (dump_json(self._category_row(category)) for category in self._categories)
        self._file.write(b",\n".join(rows) + b"\n]}\n")

    def _category_row(self, category: CocoCategory) -> dict[str, JsonValue]:
        num_images = self._images_with[category.id]
        frequency = (
            "r" if num_images <= RARE_IMAGES else "c" if num_images <= COMMON_IMAGES else "f"
        )
        return {
            "id": category.id,
            "name": category.name,
            "synonyms": [category.name],
            "synset": "",
            "def": "",
            "frequency": category.frequency or frequency,
            "image_count": num_images,
            "instance_count": self._objects_of[category.id],
        }


@contextmanager
def open_lvis(out: Path, categories: Sequence[CocoCategory]) -> Iterator[LvisWriter]:
    """Write an LVIS data set to the file `out`, which appears whole when the block ends well.

    Raises:
        OutputError: it cannot be written.
    """
    with write_whole_file(out) as file, tempfile.TemporaryFile(dir=out.parent) as images:
        file.write(b'{"info":{"description":"Labelled with ovsam"},"licenses":[],\n"annotations":[')
        writer = LvisWriter(file, images, categories)
        yield writer
        writer.finish()
