"""One part of a run's journal, open for appending; one writer each, in whatever process it lives.

Parts are numbered in the order in which they were begun: if an image has several rows, that of the
later part counts. So whoever appends while older rows stand in other parts takes the last one or
begins a new one.

A part is appended to in place, not written beside and renamed: each row's length and checksum
tell what of it is whole, and no row waits for a whole part.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.labelling.journal_index import PART_PATTERN, RowPosition, format_prefix
from ovsam_cli.labelling.journal_rows import iter_result_json
from ovsam_cli.outputs.files import output_error, sync_folder
from ovsam_cli.structures import ImageResult

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """How much work a power cut may cost. (A killed process loses nothing that was appended.)"""

    num_images: int = 32
    seconds: float = 5.0


class PartWriter:
    """Appends rows to a part, which is made if need be. Not for use by several threads at once.

    Args:
        path: of the part.
        end: bytes up to the end of its last good row; what follows is cut off.
        flush: how often to sync to disk.

    Raises:
        BlockingIOError: another process appends to it: a worker that outlives its run for a moment.
        OutputError: the folder cannot be written.
    """

    def __init__(self, path: Path, *, end: int = 0, flush: FlushPolicy | None = None) -> None:
        self.path = path
        self._end = end
        self._flush_policy = flush or FlushPolicy()
        self._num_unsynced = 0
        self._last_sync = time.monotonic()
        is_new = not path.exists()
        try:
            # Unbuffered: a row that append() returned from survives the death of the process.
            self._file = open(path, "ab+", buffering=0)
            _lock(self._file.fileno())
            if self._file.seek(0, os.SEEK_END) > end:
                self._file.truncate(end)
            if is_new:
                sync_folder(path.parent)
        except BlockingIOError:
            self._file.close()
            raise
        except OSError as error:
            raise output_error(path, error) from error

    def append(self, result: ImageResult) -> RowPosition:
        """Add the row of an image.

        Returns:
            Where it stands.

        Raises:
            OutputError: the disk is full or gone; rows so far are kept, and the row that did not
                fit is taken back, so appending can be tried again.
        """
        num_bytes = self._write_line(list(iter_result_json(result)))
        image_id, status = result.record.image_id, result.status
        position = RowPosition(self.path, self._end, num_bytes, image_id, status)
        self._end += num_bytes
        self._num_unsynced += 1
        policy = self._flush_policy
        overdue = time.monotonic() - self._last_sync >= policy.seconds
        if overdue or self._num_unsynced >= policy.num_images:
            self.flush()
        return position

    def _write_line(self, pieces: Sequence[bytes]) -> int:
        """Write a row and what stands around it, one call for all but the largest; its bytes."""
        prefix, last = format_prefix(pieces), len(pieces) - 1
        num_bytes = 0
        try:
            for number, piece in enumerate(pieces):
                part = (b"" if number else prefix) + piece + (b"\n" if number == last else b"")
                if self._file.write(part) != len(part):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                num_bytes += len(part)
        except OSError as error:
            self._file.truncate(self._end)
            raise output_error(self.path, error) from error
        return num_bytes

    def flush(self) -> None:
        """Bring all rows safely to disk.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error
        self._num_unsynced = 0
        self._last_sync = time.monotonic()

    def close(self) -> None:
        """Sync and close; a second call does nothing.

        Raises:
            OutputError: the disk is full or gone.
        """
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()


def _lock(descriptor: int) -> None:
    """Keep other processes from appending; BlockingIOError where one does."""
    if sys.platform == "win32":
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise BlockingIOError(*error.args) from error
    except OSError:  # some network folders keep no locks
        return


def list_parts(state: Path) -> list[Path]:
    """The parts in a run's state folder, in their order."""
    return sorted(state.glob(PART_PATTERN))


def part_path(state: Path, number: int) -> Path:
    """Where a part stands."""
    return state / f"part-{number:05d}.jsonl"


def part_number(path: Path) -> int:
    """The number of a part."""
    found = re.search(r"part-(\d{5})\.jsonl$", path.name)
    assert found is not None, path
    return int(found[1])
