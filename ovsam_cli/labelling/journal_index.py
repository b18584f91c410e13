"""Where the rows of a run stand: finding, checking and reading the lines of its parts.

Each line checks itself: `LENGTH CRC32 {JSON}`, the first two as 8 hex digits. If an image stands
twice, the later line counts.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.journal_rows import result_from_json
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.structures import ImageRecord, ImageResult, Status

MANIFEST_FILE, FINISHED_FILE = "manifest.json", "finished.json"
PART_PATTERN = "part-[0-9][0-9][0-9][0-9][0-9].jsonl"
# How a row begins; see `journal_rows.ResultRow`.
_TEXT = rb'"(?:[^"\\]|\\.)*"'
_HEAD = re.compile(
    rb'{"file_name":(%b),"image_id":(\d+),"path":%b,"status":"(\w+)"' % (_TEXT, _TEXT)
)
PREFIX_BYTES = len(b"00000000 00000000 ")  # length and CRC-32 of the JSON, in hex


@dataclass(frozen=True, slots=True)
class RowPosition:
    """Where the row of an image stands, and what a plan needs to know of it."""

    part: Path
    offset: int
    num_bytes: int
    image_id: int
    status: Status


class RowIndex:
    """The rows of a run's parts: positions in memory, rows read again when asked for."""

    def __init__(self) -> None:
        self._positions: dict[str, RowPosition] = {}
        self.num_damaged_lines = 0

    def __len__(self) -> int:
        return len(self._positions)

    def file_names(self, *statuses: Status) -> frozenset[str]:
        """Names of the images that have a row, only of the given statuses if there are any."""
        return frozenset(
            name
            for name, position in self._positions.items()
            if not statuses or position.status in statuses
        )

    def put(self, file_name: str, position: RowPosition) -> None:
        """Note a row; it replaces an earlier one of the same image."""
        self._positions[file_name] = position

    def find_row(self, file_name: str) -> RowPosition | None:
        """Where the row of an image stands; None without one."""
        return self._positions.get(file_name)

    def read_part(self, part: Path) -> int:
        """Note all good rows of a part.

        Returns:
            Bytes up to the end of the last good row; what follows is a torn end.
        """
        offset = good_end = num_bad = 0
        with open(part, "rb") as file:
            for line in file:
                payload = _check_line(line)
                if payload is None:
                    num_bad += 1
                else:
                    self.num_damaged_lines += num_bad  # bad lines before a good one are no torn end
                    num_bad = 0
                    file_name, image_id, status = _read_head(payload)
                    self.put(file_name, RowPosition(part, offset, len(line), image_id, status))
                    good_end = offset + len(line)
                offset += len(line)
        return good_end

    def iter_results(self, records: Sequence[ImageRecord] | None = None) -> Iterator[ImageResult]:
        """Read rows one at a time.

        Args:
            records: the images wanted, in this order; their present image_id and path replace
                the stored ones. Images without a row are left out. None: all rows by image_id.
        """
        if records is not None:
            for record, result in self.iter_pairs(records):
                yield replace(result, record=record)
            return
        names = sorted(self._positions, key=lambda name: (self._positions[name].image_id, name))
        stored = (ImageRecord(Path(), name, 0) for name in names)
        for _, result in self.iter_pairs(stored):
            yield result

    def iter_pairs(
        self, records: Iterable[ImageRecord]
    ) -> Iterator[tuple[ImageRecord, ImageResult]]:
        """Read the rows of images, by file name and in this order; those without are left out.

        Returns:
            Each image as given, and its result as stored.
        """
        with ExitStack() as stack:
            files: dict[Path, BinaryIO] = {}
            for record in records:
                position = self._positions.get(record.file_name)
                if position is None:
                    continue
                if position.part not in files:
                    files[position.part] = stack.enter_context(open(position.part, "rb"))
                yield record, _read_row(files[position.part], position)


def read_run(out: Path) -> RowIndex:
    """Index a run for reading only: nothing is locked, mended or changed.

    Raises:
        InputError: `out` holds no run.
    """
    state = out / STATE_FOLDER
    if not (state / MANIFEST_FILE).is_file():
        raise InputError(f"{out}: holds no run of ovsam; give the --out folder of `ovsam label`")
    index = RowIndex()
    for part in sorted(state.glob(PART_PATTERN)):
        index.read_part(part)
    return index


def format_line(*pieces: bytes) -> bytes:
    """A line of a part, for a row as JSON, whole or in pieces."""
    return b"".join([format_prefix(pieces), *pieces, b"\n"])


def format_prefix(pieces: Sequence[bytes]) -> bytes:
    """What stands before the pieces of a row: their length and CRC-32."""
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"%08x %08x " % (sum(map(len, pieces)), checksum)


def _check_line(line: bytes) -> memoryview | None:
    """The JSON of a line, not copied, since rows may be large; None of a torn or damaged line."""
    payload = memoryview(line)[PREFIX_BYTES:-1]
    prefix = b"%08x %08x " % (len(payload), zlib.crc32(payload))
    return payload if line.endswith(b"\n") and line.startswith(prefix) else None


def _read_head(payload: memoryview) -> tuple[str, int, Status]:
    """File name, image_id and status of a row; its objects, the most of it, are not parsed."""
    found = _HEAD.match(payload)
    if found is None:  # written by another version
        row = json.loads(bytes(payload))
        return row["file_name"], row["image_id"], row["status"]
    return json.loads(found[1]), int(found[2]), cast(Status, found[3].decode())


def _read_row(file: BinaryIO, position: RowPosition) -> ImageResult:
    file.seek(position.offset)
    text = _read_text(file.read(position.num_bytes))
    if text is None:
        raise InputError(
            f"{position.part}: changed while it was read (byte {position.offset}); "
            "run the same command again, the damaged image will be labelled again"
        )
    return result_from_json(text)


def _read_text(line: bytes) -> str | None:
    """The JSON of a good line; the line itself can be dropped before it is parsed."""
    payload = _check_line(line)
    return None if payload is None else str(payload, "ascii")
