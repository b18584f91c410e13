"""A Hugging Face `imagefolder` data set (`hf-imagefolder`): images, metadata and a card.

The folder `train` has the images and a `metadata.jsonl`, one line an image, objects as lists side
by side, as the hub's detection data sets have them. `datasets` infers the types of such metadata
and takes no others, so categories stand there by name.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import ExportCounter, ExportSummary, dump_json
from ovsam_cli.outputs.files import write_whole_folder
from ovsam_cli.outputs.image_files import (
    ImageSource,
    check_file_name,
    make_folder,
    write_small_file,
)
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult

METADATA_FILE, SPLIT = "metadata.jsonl", "train"


class ImageFolderWriter:
    """Writes a line for each image; made by `open_image_folder`."""

    def __init__(
        self, folder: Path, file: BinaryIO, categories: Sequence[CocoCategory], images: ImageSource
    ) -> None:
        self._folder = folder
        self._file = file
        self._images = images
        self._counter = ExportCounter(categories)

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
        height, width = result.original_hw
        columns: dict[str, JsonValue] = {
            "category": [one.name for one in objects],
            "category_id": [one.category_id for one in objects],
            "bbox": [list(one.bbox) for one in objects],
            "area": [one.area for one in objects],
            "score": [one.score for one in objects],
            "segmentation": [one.mask_json for one in objects],
        }
        row: dict[str, JsonValue] = {
            "file_name": result.record.file_name,
            "image_id": result.record.image_id,
            "width": width,
            "height": height,
            "objects": columns,
        }
        self._file.write(dump_json(row) + b"\n")
        self._images.place(result.record, self._folder / SPLIT / name)


@contextmanager
def open_image_folder(
    out: Path,
    categories: Sequence[CocoCategory],
    images: ImageSource,
    *,
    overwrite: bool = False,
) -> Iterator[ImageFolderWriter]:
    """Write an `imagefolder` data set to `out`, which appears whole when the block ends well.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        make_folder(folder / SPLIT)
        write_small_file(folder / "README.md", make_card(categories).encode())
        with open(folder / SPLIT / METADATA_FILE, "wb") as file:
            yield ImageFolderWriter(folder, file, categories, images)


def make_card(categories: Sequence[CocoCategory]) -> str:
    """The data set's card: what the columns mean, and the names."""
    names = "\n".join(f"| {one.id} | {html.escape(one.name)} |" for one in categories)
    return (
        "# Labelled with ovsam\n\n`objects` has one entry an object: `segmentation` is a COCO run "
        "length encoding of the upright image (after EXIF rotation), `bbox` is [x, y, width, "
        "height] in its pixels, `score` the probability of the name.\n\n"
        f"| category_id | category |\n|---|---|\n{names}\n"
    )
