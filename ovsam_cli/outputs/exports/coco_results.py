"""A COCO results list (`coco-results`): what evaluation programs take as detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import ExportCounter, ExportSummary, dump_json
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult


class ResultsWriter:
    """Writes one row an object; made by `open_coco_results`."""

    def __init__(
        self, file: BinaryIO, categories: Sequence[CocoCategory], max_per_image: int | None
    ) -> None:
        self._file = file
        self._counter = ExportCounter(categories)
        self._max_per_image = max_per_image
        self._num_rows = 0

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image's objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        self._counter.lose("name(s), which stand as category ids", len(objects))
        kept = list(range(len(objects)))
        if self._max_per_image is not None and len(objects) > self._max_per_image:
            order = np.argsort([-one.score for one in objects], kind="stable")
            kept = sorted(order[: self._max_per_image].tolist())
            what = f"object(s) beyond the best {self._max_per_image} of their image"
            self._counter.lose(what, len(objects) - len(kept))
        for row in kept:
            one = objects[row]
            entry: dict[str, JsonValue] = {
                "image_id": result.record.image_id,
                "category_id": one.category_id,
                "bbox": list(one.bbox),
                "score": one.score,
                "segmentation": one.mask_json,
            }
            self._file.write((b",\n" if self._num_rows else b"\n") + dump_json(entry))
            self._num_rows += 1


@contextmanager
def open_coco_results(
    out: Path, categories: Sequence[CocoCategory], *, max_per_image: int | None = None
) -> Iterator[ResultsWriter]:
    """Write a results list to the file `out`, which appears whole when the block ends well.

    Args:
        max_per_image: only the best so many objects of an image; LVIS's protocol takes 300.

    Raises:
        OutputError: it cannot be written.
    """
    with write_whole_file(out) as file:
        file.write(b"[")
        yield ResultsWriter(file, categories, max_per_image)
        file.write(b"\n]\n")
