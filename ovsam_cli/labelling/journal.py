"""What a run has finished, one line an image, so that the same command can continue it.

    OUT/.ovsam/lock.json          who writes here now (`run_folder.py`)
    OUT/.ovsam/manifest.json      the settings that decide the results: the fingerprint
    OUT/.ovsam/part-00000.jsonl   finished images, in the order in which they were finished
    OUT/.ovsam/finished.json      that the result files are complete (`finished_files.py`)

After a crash the torn end of a part is cut off and a damaged line is left out; their images are
simply labelled again. Result files are made by streaming the rows in order of image_id, hence never
depend on the order of completion or on how often the run was interrupted.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ovsam_cli.labelling.fingerprint import Fingerprint, check_manifest, write_manifest
from ovsam_cli.labelling.journal_index import (
    FINISHED_FILE,
    MANIFEST_FILE,
    PART_PATTERN,
    RowIndex,
    RowPosition,
    format_line,
)
from ovsam_cli.labelling.journal_rows import result_to_json
from ovsam_cli.labelling.run_folder import STATE_FOLDER, RunLock
from ovsam_cli.outputs.files import output_error, sync_folder
from ovsam_cli.structures import ImageRecord, ImageResult


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """How much work a power cut may cost. (A killed process loses nothing that was appended.)"""

    num_images: int = 32
    seconds: float = 5.0


class Journal:
    """The open journal of a run; a context manager. Not for use by several threads at once.

    Attributes:
        index: the rows, those of earlier runs of the same command included.
        num_recovered: rows found when the journal was opened.
    """

    def __init__(self, *, lock: RunLock, owns_lock: bool, part: Path, flush: FlushPolicy) -> None:
        self.index = RowIndex()
        self._lock = lock
        self._owns_lock = owns_lock
        self._part = part
        self._flush_policy = flush
        self._num_unsynced = 0
        self._last_sync = time.monotonic()
        self._file, self._end = self._recover()
        self.num_recovered = len(self.index)

    @classmethod
    def open(
        cls,
        out: Path,
        fingerprint: Fingerprint,
        *,
        restart: bool = False,
        lock: RunLock | None = None,
        flush: FlushPolicy | None = None,
        part_number: int = 0,
    ) -> Journal:
        """Open the journal of `out`, new or continued.

        Args:
            out: a folder made ready by `run_folder.prepare_output`.
            fingerprint: the settings of this run.
            restart: drop the rows of earlier runs first, whatever their settings.
            lock: the lock `prepare_output` gave; None takes one for the journal's life.
            flush: how often to sync to disk.
            part_number: the part to append to; one a worker.

        Raises:
            InputError: the folder holds a run with other settings; they are named.
            OutputError: the folder cannot be written, or another run is writing to it.
        """
        state = out / STATE_FOLDER
        held = RunLock.acquire(out) if lock is None else lock
        try:
            _prepare_state(state, fingerprint, restart=restart)
            return cls(
                lock=held,
                owns_lock=lock is None,
                part=state / f"part-{part_number:05d}.jsonl",
                flush=flush or FlushPolicy(),
            )
        except BaseException as error:
            if lock is None:
                held.release()
            if isinstance(error, OSError):
                raise output_error(state, error) from error
            raise

    @property
    def finished(self) -> frozenset[str]:
        """File names of the images that have a row, failed ones included."""
        return self.index.file_names()

    @property
    def failed(self) -> frozenset[str]:
        """File names of the images whose row says that they failed."""
        return self.index.file_names("failed")

    def append(self, result: ImageResult) -> None:
        """Add the row of an image.

        Raises:
            OutputError: the disk is full or gone; rows so far are kept, and the row that did not
                fit is taken back, so appending can be tried again.
        """
        line = format_line(result_to_json(result))
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._end)
            raise output_error(self._part, error) from error
        record = result.record
        self.index.put(
            record.file_name,
            RowPosition(self._part, self._end, len(line), record.image_id, result.status),
        )
        self._end += len(line)
        self._num_unsynced += 1
        policy = self._flush_policy
        overdue = time.monotonic() - self._last_sync >= policy.seconds
        if overdue or self._num_unsynced >= policy.num_images:
            self.flush()

    def flush(self) -> None:
        """Bring all rows safely to disk.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self._part, error) from error
        self._num_unsynced = 0
        self._last_sync = time.monotonic()

    def iter_results(self, records: Sequence[ImageRecord] | None = None) -> Iterator[ImageResult]:
        """Finished images; see `RowIndex.iter_results`."""
        return self.index.iter_results(records)

    def list_parts(self) -> list[tuple[str, int]]:
        """Names and sizes of the parts: they only grow, so equal ones hold the same rows."""
        parts = sorted(self._part.parent.glob(PART_PATTERN))
        return [(part.name, part.stat().st_size) for part in parts]

    def iter_failed(self, records: Sequence[ImageRecord]) -> Iterator[ImageResult]:
        """Results of those of the given images that failed, in their order."""
        failed = self.failed
        return self.index.iter_results([r for r in records if r.file_name in failed])

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
            if self._owns_lock:
                self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _recover(self) -> tuple[BinaryIO, int]:
        """Index all parts, cut the torn end of our own, and open it behind its last row."""
        # Unbuffered: a row that append() returned from survives the death of the process.
        is_new = not self._part.exists()
        file = open(self._part, "ab+", buffering=0)
        for part in sorted(self._part.parent.glob(PART_PATTERN)):
            end = self.index.read_part(part)
            if part == self._part:
                own_end = end
                if part.stat().st_size > end:
                    file.truncate(end)
        if is_new:
            sync_folder(self._part.parent)
        return file, own_end


def _prepare_state(state: Path, fingerprint: Fingerprint, *, restart: bool) -> None:
    """Check that the rows in a state folder are this run's; a new or restarted one is empty."""
    manifest = state / MANIFEST_FILE
    if restart:
        # The manifest goes last: rows without their settings would look like ours.
        for path in [state / FINISHED_FILE, *state.glob(PART_PATTERN), manifest]:
            path.unlink(missing_ok=True)
    if manifest.exists():
        check_manifest(manifest, fingerprint)
    else:
        write_manifest(manifest, fingerprint)
