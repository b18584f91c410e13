"""Results as Parquet (extra `parquet`): `part-00000.parquet`, ..., one row an image.

Each part is whole or not there, and says in its metadata what its ids mean; `_SUCCESS` says that
all parts are there. The columns stand in `parquet_rows.py` and in docs/running-at-scale.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.outputs.folders import Folder
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.parquet_rows import build_columns, result_to_row, row_to_result
from ovsam_cli.structures import ImageResult

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_FORMAT = "ovsam-parquet-1"
SUCCESS_FILE = "_SUCCESS"
METADATA_KEY = b"ovsam"
ROWS_PER_GROUP = 128  # some megabytes; what a reader holds of each part
IMAGES_PER_PART = 512


@dataclass(frozen=True, slots=True)
class ParquetHeader:
    """What a part says of itself.

    Attributes:
        categories: that category ids stand for.
        coco: form of the run's COCO file.
        settings: that decided the results: hashes of weights, names and prompts, options.
        first_image_id: no image of this part, or of one behind it, has a lower id.
    """

    categories: tuple[CocoCategory, ...]
    coco: CocoOptions
    settings: Mapping[str, JsonValue]
    first_image_id: int = 1


@dataclass(frozen=True, slots=True)
class ParquetCounts:
    """What was written."""

    num_parts: int = 0
    num_images: int = 0
    num_objects: int = 0


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.parquet"


def check_pyarrow() -> None:
    """Raise InputError where Parquet cannot be read or written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError("Parquet files need pyarrow: pip install 'ovsam-cli[parquet]'") from error


def write_part(file: BinaryIO, results: Iterable[ImageResult], header: ParquetHeader) -> None:
    """Write one part.

    Args:
        file: empty, at its start.
        results: by image_id.
        header: of this part.

    Raises:
        OSError: the disk is full or gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {category.id: category.name for category in header.categories}
    schema = _build_schema(header)
    upcoming = iter(results)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := [result_to_row(one, names) for one in islice(upcoming, ROWS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def part_to_bytes(results: Iterable[ImageResult], header: ParquetHeader) -> bytes:
    """The same in memory."""
    file = io.BytesIO()
    write_part(file, results, header)
    return file.getvalue()


def read_header(file: BinaryIO, name: str) -> ParquetHeader:
    """What a part says of itself.

    Args:
        file: the part, open.
        name: for messages.

    Raises:
        InputError: no Parquet file, or not one of ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(file).metadata or {}
        content = json.loads(metadata[METADATA_KEY])
        if content["format"] != PARQUET_FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {PARQUET_FORMAT!r}")
        return ParquetHeader(
            categories=tuple(CocoCategory(**fields) for fields in content["categories"]),
            coco=CocoOptions(**content["coco"]),
            settings=content["settings"],
            first_image_id=int(content["first_image_id"]),
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name}: is no Parquet part of ovsam ({error})") from error


def iter_part(file: BinaryIO, name: str) -> Iterator[ImageResult]:
    """The results of a part, in its order; a group of rows is in memory. Closes the file behind it.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=ROWS_PER_GROUP):
                yield from map(row_to_result, batch.to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{name}: cannot be read: {error}") from error


def check_new_parts(folder: Folder) -> None:
    """Raise InputError where parts of some run, or other files, are already there."""
    check_pyarrow()
    if names := folder.list_names():
        raise InputError(
            f"{folder.location}: is not empty (found {names[0]!r}); choose a new --out"
        )


def write_parts(
    folder: Folder,
    results: Iterable[ImageResult],
    header: ParquetHeader,
    *,
    images_per_part: int = IMAGES_PER_PART,
    on_part: Callable[[int], None] = lambda num_images: None,
) -> ParquetCounts:
    """Write results into parts, and `_SUCCESS` behind them.

    Args:
        folder: an empty one.
        results: by image_id.
        header: of the first part.
        images_per_part: rows of each, as they are held in memory.
        on_part: called with the number of images written so far.

    Raises:
        OutputError: the folder cannot be written.
    """
    upcoming, counts = iter(results), ParquetCounts()
    while (part := list(islice(upcoming, images_per_part))) or counts.num_parts == 0:
        first_id = part[0].record.image_id if part else 1
        content = part_to_bytes(part, replace(header, first_image_id=first_id))
        folder.write(part_name(counts.num_parts), content)
        num_objects = sum(len(one.detections) for one in part if one.detections is not None)
        counts = ParquetCounts(
            counts.num_parts + 1, counts.num_images + len(part), counts.num_objects + num_objects
        )
        on_part(counts.num_images)
    folder.write(SUCCESS_FILE, b"")
    return counts


def _build_schema(header: ParquetHeader) -> pa.Schema:
    import pyarrow as pa

    content = {"format": PARQUET_FORMAT} | asdict(header)
    metadata = {METADATA_KEY: json.dumps(content, allow_nan=False).encode()}
    return pa.schema(build_columns(), metadata=metadata)
