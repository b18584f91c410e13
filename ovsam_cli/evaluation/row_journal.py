"""The journal of an evaluation: a row for every image that was answered; no torch.

    OUT/.ovsam/part-00000.jsonl   one line an image, in the form of `labelling.journal_index`

A row begins as those of `ovsam label` do, so the same code finds the rows of a part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Generic, Protocol, Self, TypeVar

from ovsam_cli.labelling.fingerprint import Fingerprint, check_manifest, write_manifest
from ovsam_cli.labelling.journal_index import (
    MANIFEST_FILE,
    PREFIX_BYTES,
    RowIndex,
    RowPosition,
    format_line,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER, RunLock, prepare_output
from ovsam_cli.outputs.files import output_error
from ovsam_cli.structures import ImageRecord, Status

if TYPE_CHECKING:
    from ovsam_cli.evaluation.prompted_options import PromptedRequest

PART = "part-00000.jsonl"


class JournalRow(Protocol):
    """What a journal asks of its rows; `reason` tells why an image failed, and is empty else."""

    @property
    def record(self) -> ImageRecord:
        """The image."""

    @property
    def reason(self) -> str:
        """One word; empty for an image that was answered."""

    def to_json(self) -> bytes:
        """One line of ASCII JSON that begins with `describe_record`."""


Row = TypeVar("Row", bound=JournalRow)
Built = TypeVar("Built")


def describe_record(record: ImageRecord, reason: str, message: str) -> dict[str, object]:
    """The beginning of a row."""
    return {
        "file_name": record.file_name,
        "image_id": record.image_id,
        "path": str(record.path),
        "status": "failed" if reason else "ok",
        "reason": reason,
        "message": message,
    }


def read_record(content: Mapping[str, object]) -> ImageRecord:
    """The image of a row.

    Raises:
        KeyError, TypeError: it has none.
    """
    path, file_name, image_id = (content[key] for key in ("path", "file_name", "image_id"))
    if not (isinstance(path, str) and isinstance(file_name, str) and isinstance(image_id, int)):
        raise TypeError("path, file_name or image_id is of another type")
    return ImageRecord(Path(path), file_name, image_id)


class RowJournal(Generic[Row]):
    """The open rows of an evaluation; a context manager. A killed run goes on behind its last row.

    Args:
        out: a folder made ready by `run_folder.prepare_output`.
        fingerprint: the settings that decide the rows.
        read_row: reads what the rows' `to_json` wrote.
        lock: on the folder.
        restart: drop the rows of earlier runs first.

    Raises:
        InputError: the folder holds rows of other settings; they are named.
        OutputError: it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        fingerprint: Fingerprint,
        read_row: Callable[[bytes], Row],
        *,
        lock: RunLock,
        restart: bool = False,
    ) -> None:
        self.lock = lock
        self._read_row = read_row
        self._part = out / STATE_FOLDER / PART
        manifest = out / STATE_FOLDER / MANIFEST_FILE
        try:
            if restart:
                self._part.unlink(missing_ok=True)
                manifest.unlink(missing_ok=True)
            if manifest.exists():
                check_manifest(manifest, fingerprint)
            else:
                write_manifest(manifest, fingerprint)
            self._file: BinaryIO = open(self._part, "ab+", buffering=0)
            self.index = RowIndex()
            self._end = self.index.read_part(self._part)
            self._file.truncate(self._end)
        except OSError as error:
            raise output_error(self._part, error) from error

    @property
    def finished(self) -> frozenset[str]:
        """File names of the images that have a row."""
        return self.index.file_names()

    def append(self, row: Row) -> None:
        """Add the row of an image.

        Raises:
            OutputError: the disk is full or gone; the rows before are kept.
        """
        line = format_line(row.to_json())
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            self._file.truncate(self._end)
            raise output_error(self._part, error) from error
        status: Status = "failed" if row.reason else "ok"
        position = RowPosition(self._part, self._end, len(line), row.record.image_id, status)
        self.index.put(row.record.file_name, position)
        self._end += len(line)

    def iter_rows(self, records: Sequence[ImageRecord]) -> Iterator[Row]:
        """The rows of images, in their order, one at a time; images without a row are left out."""
        for record in records:
            position = self.index.find_row(record.file_name)
            if position is not None:
                self._file.seek(position.offset)
                yield self._read_row(self._file.read(position.num_bytes)[PREFIX_BYTES:-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self.lock.release()


def open_journal(
    request: PromptedRequest,
    build: Callable[[], tuple[Built, Fingerprint]],
    read_row: Callable[[bytes], Row],
) -> tuple[Built, RowJournal[Row]]:
    """Lock the folder, then build what answers (weights take long), then open the rows.

    Args:
        request: says in which folder, and what may become of what is there.
        build: makes what answers, and the settings that decide the rows.
        read_row: as of `RowJournal`.

    Raises:
        InputError: the folder holds something else, or rows of other settings.
        OutputError: it cannot be written, or is in use.
    """
    lock = prepare_output(request.out, overwrite=request.overwrite)
    try:
        built, fingerprint = build()
        journal = RowJournal(request.out, fingerprint, read_row, lock=lock, restart=request.restart)
    except BaseException:
        lock.release()
        raise
    return built, journal


def fill_journal(
    journal: RowJournal[Row],
    records: Sequence[ImageRecord],
    answer: Callable[[list[int]], Generator[Sequence[Row]]],
    *,
    on_images: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Answer the images that have no row yet.

    Args:
        journal: open.
        records: all images.
        answer: rows of the images at these places of the records, batch by batch.
        on_images: called with the number of images done and of all.
        should_stop: asked after each batch.

    Raises:
        OutputError: the disk is full or gone.
        KeyboardInterrupt: `should_stop` said so; the rows so far are kept.
    """
    finished = journal.finished
    left = [row for row, one in enumerate(records) if one.file_name not in finished]
    done = len(records) - len(left)
    on_images(done, len(records))
    with closing(answer(left)) as batches:
        for batch in batches:
            for row in batch:
                journal.append(row)
            done += len(batch)
            on_images(done, len(records))
            if should_stop():
                raise KeyboardInterrupt
