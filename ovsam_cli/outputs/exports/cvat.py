"""Files for CVAT: `annotations.xml` of "CVAT for images 1.1" (`cvat`), or a COCO archive.

Both hold masks to the pixel. `labels.json` is for the "Raw" field of a new task: CVAT imports
objects only under labels that the task has.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ovsam_cli import masks
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions, CocoWriter
from ovsam_cli.outputs.exporting import ExportCounter, ExportedObject, ExportSummary
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import write_small_file
from ovsam_cli.structures import BoolArray, ImageResult

XML_FILE, ARCHIVE_FILE, LABELS_FILE = "annotations.xml", "coco.zip", "labels.json"
COCO_PLACE = "annotations/instances_default.json"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # equal runs give equal bytes


class CvatWriter:
    """Writes both files; made by `open_cvat`."""

    def __init__(
        self, file: BinaryIO, coco: CocoWriter, categories: Sequence[CocoCategory]
    ) -> None:
        self._file = file
        self._coco = coco
        self._counter = ExportCounter(categories)
        self._num_images = 0

    @property
    def summary(self) -> ExportSummary:
        """What was written so far."""
        return self._counter.summary

    def write(self, result: ImageResult) -> None:
        """Add an image and its objects; see `ExportWriter.write`."""
        objects = self._counter.take(result)
        if objects is None:
            return
        self._coco.write(result)
        height, width = result.original_hw
        name = quoteattr(self._counter.xml_text(result.record.file_name))
        rows = [f'  <image id="{self._num_images}" name={name} width="{width}" height="{height}">']
        rows += [self._mask_row(one) for one in objects]
        self._file.write(("\n".join([*rows, "  </image>"]) + "\n").encode())
        self._num_images += 1
        self._counter.lose("score(s)", len(objects))

    def _mask_row(self, one: ExportedObject) -> str:
        x, y, width, height = (int(value) for value in one.bbox)
        cut = masks.decode_mask(one.segmentation)[y : y + height, x : x + width]
        runs = ", ".join(map(str, count_row_runs(cut)))
        label = quoteattr(self._counter.xml_text(one.name))
        return (
            f'    <mask label={label} source="auto" occluded="0" rle="{runs}" '
            f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"></mask>'
        )


def count_row_runs(mask: BoolArray) -> list[int]:
    """Lengths of the runs of an (H, W) mask row by row, the first one of background."""
    flat = np.concatenate([[False], np.ravel(mask)])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs: list[int] = np.diff(np.concatenate([[0], edges, [flat.size - 1]])).tolist()
    return runs


@contextmanager
def open_cvat(
    out: Path, categories: Sequence[CocoCategory], *, overwrite: bool = False
) -> Iterator[CvatWriter]:
    """Write the XML file, the COCO archive and the labels to `out`, which appears whole at the end.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        coco_file = folder / "coco.json"
        with (
            open(folder / XML_FILE, "wb") as file,
            CocoWriter(coco_file, categories=categories, options=CocoOptions()) as coco,
        ):
            file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
            file.write(b"  <version>1.1</version>\n" + _make_meta(categories).encode())
            yield CvatWriter(file, coco, categories)
            file.write(b"</annotations>\n")
        _pack(coco_file, folder / ARCHIVE_FILE)
        labels = [{"name": one.name, "type": "mask", "attributes": []} for one in categories]
        write_small_file(folder / LABELS_FILE, json.dumps(labels, indent=1).encode() + b"\n")


def _make_meta(categories: Sequence[CocoCategory]) -> str:
    """What readers other than CVAT take the labels from."""
    labels = "".join(
        f"        <label><name>{escape(one.name)}</name><attributes></attributes></label>\n"
        for one in categories
    )
    return (
        "  <meta>\n    <task>\n      <name>ovsam</name>\n      <mode>annotation</mode>\n"
        f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
    )


def _pack(coco_file: Path, archive: Path) -> None:
    """Move a COCO file into an archive of the layout CVAT imports."""
    entry = zipfile.ZipInfo(COCO_PLACE, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(archive, "w") as file,
        open(coco_file, "rb") as source,
        file.open(entry, "w") as target,
    ):
        while chunk := source.read(1 << 20):
            target.write(chunk)
    coco_file.unlink()
