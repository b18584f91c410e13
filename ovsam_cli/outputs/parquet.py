"""Results as Parquet (extra `parquet`): `part-00000.parquet`, ..., one row an image.

Each part is whole or not there, and says in its metadata what its ids mean; `_SUCCESS` says that
all parts are there. The columns stand in `parquet_rows.py` and in docs/running-at-scale.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.outputs.folders import Folder, open_folder
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


@dataclass(frozen=True, slots=True)
class ParquetRun:
    """The parts of a run; made by `open_parts`.

    Attributes:
        categories, coco, settings: as in `ParquetHeader`.
        folder: where they are.
        names: of the parts.
    """

    categories: tuple[CocoCategory, ...]
    coco: CocoOptions
    settings: Mapping[str, JsonValue]
    folder: Folder
    names: tuple[str, ...]

    def iter_results(self) -> Iterator[ImageResult]:
        """All results by image_id. Open at once are only parts whose ids interlock.

        Raises:
            InputError: a part is damaged, of another run, or holds images of another part.
        """
        last_id = 0
        for result in self._merge():
            if result.record.image_id <= last_id:
                raise InputError(
                    f"{self.folder.location}: image_id {result.record.image_id} stands twice; "
                    "these are parts of several runs"
                )
            last_id = result.record.image_id
            yield result

    def _merge(self) -> Iterator[ImageResult]:
        # The next result of each open part; the number tells equal ids apart.
        heap: list[tuple[int, int, ImageResult, Iterator[ImageResult]]] = []
        files: list[BinaryIO] = []
        try:
            for number, name in enumerate(self.names):
                files = [file for file in files if not file.closed]
                files.append(file := self.folder.open(name))
                header = read_header(file, f"{self.folder.location}/{name}")
                self._check(header, name)
                while heap and heap[0][0] < header.first_image_id:
                    yield _take_first(heap)
                _push(heap, number, iter_part(file, f"{self.folder.location}/{name}"))
            while heap:
                yield _take_first(heap)
        finally:
            for file in files:
                file.close()

    def _check(self, header: ParquetHeader, name: str) -> None:
        if header.settings != self.settings or header.categories != self.categories:
            raise InputError(
                f"{self.folder.location}/{name}: was made with other settings than "
                f"{self.names[0]}; parts of one folder are of one run"
            )


def open_parts(location: Path | str, *, partial: bool = False) -> ParquetRun:
    """Open a folder of parts.

    Args:
        location: path or URL of the folder.
        partial: take what is there of a run that has not finished.

    Raises:
        InputError: no parts there, or not all of them.
    """
    check_pyarrow()
    folder = open_folder(location)
    names = folder.list_names()
    parts = tuple(name for name in names if fnmatch(name, "part-*.parquet"))
    if not parts:
        raise InputError(f"{location}: holds no part-*.parquet of ovsam")
    if SUCCESS_FILE not in names and not partial:
        raise InputError(
            f"{location}: not finished (no {SUCCESS_FILE}, {len(parts)} parts so far); finish by "
            "running the same command again, or take what is there with --partial"
        )
    with folder.open(parts[0]) as file:
        header = read_header(file, f"{location}/{parts[0]}")
    return ParquetRun(header.categories, header.coco, header.settings, folder, parts)


def write_parts(
    folder: Folder,
    results: Iterable[ImageResult],
    header: ParquetHeader,
    *,
    images_per_part: int = IMAGES_PER_PART,
) -> int:
    """Write results into parts, and `_SUCCESS` behind them; the number of parts.

    Args:
        folder: without parts of others.
        results: by image_id.
        header: of the first part.
        images_per_part: rows of each, as they are held in memory.

    Raises:
        OutputError: the folder cannot be written.
    """
    upcoming, number = iter(results), 0
    while (part := list(islice(upcoming, images_per_part))) or number == 0:
        first_id = part[0].record.image_id if part else 1
        content = part_to_bytes(part, replace(header, first_image_id=first_id))
        folder.write(part_name(number), content)
        number += 1
    folder.write(SUCCESS_FILE, b"")
    return number


def _push(
    heap: list[tuple[int, int, ImageResult, Iterator[ImageResult]]],
    number: int,
    results: Iterator[ImageResult],
) -> None:
    first = next(results, None)
    if first is not None:
        heappush(heap, (first.record.image_id, number, first, results))


def _take_first(
    heap: list[tuple[int, int, ImageResult, Iterator[ImageResult]]],
) -> ImageResult:
    _, number, result, rest = heappop(heap)
    _push(heap, number, rest)
    return result


def _build_schema(header: ParquetHeader) -> pa.Schema:
    import pyarrow as pa

    content = {"format": PARQUET_FORMAT} | asdict(header)
    metadata = {METADATA_KEY: json.dumps(content, allow_nan=False).encode()}
    return pa.schema(build_columns(), metadata=metadata)
