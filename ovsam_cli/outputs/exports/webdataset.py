"""WebDataset shards (`webdataset`): tar files in which `KEY.jpg` stands beside `KEY.json`.

The key is the image's id: readers take all up to the first dot of a name as its key, and a folder
or a dot in a file name would tear image and labels apart. The name itself stands in the JSON.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath

from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.outputs.exporting import ExportCounter, ExportSummary, dump_json
from ovsam_cli.outputs.files import output_error, write_whole_folder
from ovsam_cli.outputs.image_files import ImageSource, write_small_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageResult

IMAGES_PER_SHARD = 1000
NAMES_FILE = "names.json"


class ShardWriter:
    """Writes images and labels to one tar file after another; made by `open_webdataset`."""

    def __init__(
        self,
        folder: Path,
        categories: Sequence[CocoCategory],
        images: ImageSource,
        images_per_shard: int,
    ) -> None:
        self._folder = folder
        self._images = images
        self._images_per_shard = images_per_shard
        self._counter = ExportCounter(categories)
        self._shard: tarfile.TarFile | None = None
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
        height, width = result.original_hw
        row: dict[str, JsonValue] = {
            "file_name": result.record.file_name,
            "image_id": result.record.image_id,
            "width": width,
            "height": height,
            "objects": [
                {
                    "name": one.name,
                    "category_id": one.category_id,
                    "class_index": one.class_index,
                    "score": one.score,
                    "bbox": list(one.bbox),
                    "area": one.area,
                    "segmentation": one.mask_json,
                }
                for one in objects
            ],
        }
        key = f"{result.record.image_id:09d}"
        if self._num_images % self._images_per_shard == 0:
            self._begin_shard()
        if self._images.mode != "none":
            suffix = PurePosixPath(result.record.file_name).suffix.lower() or ".jpg"
            self._add(key + suffix, self._read(result))
        self._add(f"{key}.json", dump_json(row))
        self._num_images += 1

    def close(self) -> None:
        """Close the shard at hand."""
        if self._shard is not None:
            self._shard.close()

    def _begin_shard(self) -> None:
        self.close()
        number = self._num_images // self._images_per_shard
        # USTAR has no times below the second and no owner: equal runs give equal bytes.
        self._shard = tarfile.open(
            self._folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT
        )

    def _read(self, result: ImageResult) -> bytes:
        path = self._images.find(result.record)
        try:
            return path.read_bytes()
        except OSError as error:
            raise output_error(path, error) from error

    def _add(self, name: str, data: bytes) -> None:
        assert self._shard is not None  # every image begins or continues one
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._shard.addfile(entry, BytesIO(data))


@contextmanager
def open_webdataset(
    out: Path,
    categories: Sequence[CocoCategory],
    images: ImageSource,
    *,
    images_per_shard: int = IMAGES_PER_SHARD,
    overwrite: bool = False,
) -> Iterator[ShardWriter]:
    """Write shards to the folder `out`, which appears whole when the block ends well.

    Args:
        images: with mode `none` the shards hold labels only; else each holds its images.

    Raises:
        InputError: `out` holds something else.
        OutputError: it cannot be written.
    """
    with write_whole_folder(out, overwrite=overwrite) as folder:
        writer = ShardWriter(folder, categories, images, images_per_shard)
        try:
            yield writer
        finally:
            writer.close()
        names = {str(one.id): one.name for one in categories}
        write_small_file(folder / NAMES_FILE, dump_json(names) + b"\n")
