"""A worker process and the two ends of its pipe; no torch.

The parent's end starts the process, sends it batches and gets its reports. The worker's end reads
in a thread of its own, so that a stop reaches it while it computes, and ends the process at once
when the parent is gone. Signals are the parent's: workers are started with them blocked.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from ovsam_cli.errors import OvsamError
from ovsam_cli.labelling.journal_index import RowPosition
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.prompts import PromptSource
from ovsam_cli.structures import ImageRecord, ImageResult

SECONDS_BETWEEN_LOOKS = 0.01


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message to a worker that is ready.

    Attributes:
        part: of the journal, for the worker to make and to append to.
        num_images: that it will label, about.
    """

    part: Path
    num_images: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A planned batch on its way to a worker.

    Attributes:
        records: its images.
        wanted: file names of those whose rows are missing.
        prompts: of these images; None in grid mode.
    """

    records: tuple[ImageRecord, ...]
    wanted: frozenset[str]
    prompts: PromptSource | None


@dataclass(frozen=True, slots=True)
class Stop:
    """No batch is to be begun any more; those on the device are finished."""


@dataclass(frozen=True, slots=True)
class RowDone:
    """A row is in the worker's part: the result without its objects, and where its row stands."""

    result: ImageResult
    position: RowPosition


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Crash:
    """An error that nobody foresaw, in one line."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last report: the part is synced and closed, and the process may be ended."""


ToWorker: TypeAlias = "Begin | Batch | Stop | None"  # None: all is done
ToParent: TypeAlias = "RunFacts | RowDone | Notice | Crash | Finished | OvsamError"


class WorkerEnd:
    """What a worker reads from and writes to.

    Args:
        connection: to the parent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._received: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        threading.Thread(target=self._receive, daemon=True, name="receive").start()

    def is_stopping(self) -> bool:
        """Whether the parent wants no batch to be begun any more."""
        return self._is_stopping.is_set()

    def send(self, message: ToParent) -> None:
        """Report something; from any thread."""
        with self._sending:
            self._connection.send(message)

    def wait_for_begin(self) -> Begin | None:
        """The first message; None where there is nothing to do."""
        first = self._received.get()
        return first if isinstance(first, Begin) else None

    def iter_batches(self) -> Iterator[Batch | None]:
        """Batches as they come, None where there is none at the moment, until the end.

        The second None in a row comes a little later, so that a consumer with nothing else to do
        may ask again at once.
        """
        wait = False
        while not self.is_stopping():
            try:
                message = self._received.get(timeout=SECONDS_BETWEEN_LOOKS if wait else 0.0)
            except queue.Empty:
                wait = True
                yield None
                continue
            if not isinstance(message, Batch):
                return
            wait = False
            yield message

    def _receive(self) -> None:
        try:
            while True:
                message: ToWorker = self._connection.recv()
                if isinstance(message, Stop):
                    self._is_stopping.set()
                self._received.put(message)
        except (EOFError, OSError):
            # Nobody reads our reports any more, and the next run must not meet us here.
            os.kill(os.getpid(), signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)


Work: TypeAlias = Callable[[WorkerEnd], None]  # picklable: of a module, or a partial of such a one


class WorkerProcess:
    """The parent's end of a running worker.

    Args:
        work: what the process does.
    """

    def __init__(self, work: Work) -> None:
        self.connection, theirs = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(
            target=run_worker, args=(work, theirs), daemon=True
        )
        with _signals_blocked():
            self._process.start()
        theirs.close()  # only the worker has it now, so that its death closes the pipe

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid or 0

    @property
    def sentinel(self) -> int:
        """For `multiprocessing.connection.wait`: ready when the process has ended."""
        return self._process.sentinel

    def send(self, message: ToWorker) -> None:
        """Send a message; into nothing if the worker has just died, which its sentinel tells."""
        try:
            self.connection.send(message)
        except OSError:
            return

    def receive(self) -> Iterator[ToParent]:
        """What it has reported; also what a dead one still said."""
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            return

    def has_ended(self, timeout: float | None = 0.0) -> bool:
        """Whether the process has ended, at most so many seconds from now."""
        self._process.join(timeout)
        return self._process.exitcode is not None

    def describe_end(self) -> str:
        """How it ended, in words."""
        code = self._process.exitcode
        if code is not None and code < 0:
            hint = " (the system does so when memory runs out)" if code == -9 else ""
            return f"was killed by signal {-code}{hint}"
        return f"ended with code {code}"

    def kill(self) -> None:
        """End it now; its rows are on disk."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def run_worker(work: Work, connection: Connection) -> None:
    """The process's main function."""
    end = WorkerEnd(connection)
    try:
        work(end)
        end.send(Finished())
    except OvsamError as error:
        end.send(error)
    except Exception as error:  # whatever it was, the parent tries the batches again elsewhere
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        end.send(Crash(f"stopped: {type(error).__name__}: {error} ({where})"))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started in this block never gets these signals; here they come a little later."""
    if sys.platform == "win32":
        yield
        return
    # Python's helper process must run by now: starting it would let the signals through again.
    resource_tracker.ensure_running()
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
