"""What a run has finished, one line an image, so that the same command can continue it.

    OUT/.ovsam/lock.json          who writes here now (`run_folder.py`)
    OUT/.ovsam/manifest.json      the settings that decide the results: the fingerprint
    OUT/.ovsam/part-00000.jsonl   finished images, in the order in which they were finished;
                                  a process beside others has a part of its own
    OUT/.ovsam/finished.json      that the result files are complete (`finished_files.py`)

After a crash the torn end of a part is cut off and a damaged line is left out; their images are
simply labelled again. Result files are made by streaming the rows in order of image_id, hence never
depend on the order of completion or on how often the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from ovsam_cli.labelling.fingerprint import (
    Fingerprint,
    check_manifest,
    read_settings,
    write_manifest,
)
from ovsam_cli.labelling.journal_index import (
    FINISHED_FILE,
    MANIFEST_FILE,
    PART_PATTERN,
    RowIndex,
)
from ovsam_cli.labelling.journal_part import (
    FlushPolicy,
    PartWriter,
    list_parts,
    part_number,
    part_path,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER, RunLock
from ovsam_cli.outputs.files import output_error
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageRecord, ImageResult


class Journal:
    """The open journal of a run; a context manager. Not for use by several threads at once.

    Attributes:
        index: the rows, those of earlier runs of the same command included.
        num_recovered: rows found when the journal was opened.
    """

    def __init__(self, state: Path, *, lock: RunLock | None, flush: FlushPolicy | None) -> None:
        self.index = RowIndex()
        self.state = state
        self._own_lock = lock
        ends = {part: self.index.read_part(part) for part in list_parts(state)}
        # The last part: rows of an image that is labelled again must stand behind its old ones.
        last = max(ends, default=part_path(state, 0))
        self._next_number = part_number(last) + 1
        try:
            self._part = PartWriter(last, end=ends.get(last, 0), flush=flush)
        except BlockingIOError:
            self._part = PartWriter(self.begin_part(), flush=flush)
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
    ) -> Journal:
        """Open the journal of `out`, new or continued.

        Args:
            out: a folder made ready by `run_folder.prepare_output`.
            fingerprint: the settings of this run.
            restart: drop the rows of earlier runs first, whatever their settings.
            lock: the lock `prepare_output` gave; None takes one for the journal's life.
            flush: how often to sync to disk.

        Raises:
            InputError: the folder holds a run with other settings; they are named.
            OutputError: the folder cannot be written, or another run is writing to it.
        """
        state = out / STATE_FOLDER
        held = RunLock.acquire(out) if lock is None else lock
        try:
            _prepare_state(state, fingerprint, restart=restart)
            return cls(state, lock=held if lock is None else None, flush=flush)
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
        self.index.put(result.record.file_name, self._part.append(result))

    def begin_part(self) -> Path:
        """A part for another writer, who makes the file; notes its rows in `index`, or has them
        read by it, when they are there.
        """
        self._next_number += 1
        return part_path(self.state, self._next_number - 1)

    def flush(self) -> None:
        """Bring all rows safely to disk.

        Raises:
            OutputError: the disk is full or gone.
        """
        self._part.flush()

    def iter_results(self, records: Sequence[ImageRecord] | None = None) -> Iterator[ImageResult]:
        """Finished images; see `RowIndex.iter_results`."""
        return self.index.iter_results(records)

    def list_parts(self) -> list[tuple[str, int]]:
        """Names and sizes of the parts: they only grow, so equal ones hold the same rows."""
        return [(part.name, part.stat().st_size) for part in list_parts(self.state)]

    def iter_failed(self, records: Sequence[ImageRecord]) -> Iterator[ImageResult]:
        """Results of those of the given images that failed, in their order."""
        failed = self.failed
        return self.index.iter_results([r for r in records if r.file_name in failed])

    def close(self) -> None:
        """Sync and close; a second call does nothing.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            self._part.close()
        finally:
            if self._own_lock is not None:
                self._own_lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_state_settings(out: Path) -> dict[str, JsonValue]:
    """The settings of the run in an output folder; empty where there is none.

    Raises:
        InputError: its manifest is damaged.
    """
    manifest = out / STATE_FOLDER / MANIFEST_FILE
    return read_settings(manifest) if manifest.exists() else {}


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
