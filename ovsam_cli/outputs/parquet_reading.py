"""The Parquet parts of a run as its results again, by image id and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from heapq import heappop, heappush
from pathlib import Path
from typing import BinaryIO

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.outputs.folders import Folder, open_folder
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.parquet import (
    SUCCESS_FILE,
    ParquetHeader,
    check_pyarrow,
    iter_part,
    read_header,
)
from ovsam_cli.structures import ImageResult


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

    @property
    def num_images(self) -> int:
        """Rows of all parts, from the ends of the files."""
        import pyarrow.parquet as pq

        total = 0
        for name in self.names:
            with self.folder.open(name) as file:
                total += int(pq.read_metadata(file).num_rows)
        return total

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
