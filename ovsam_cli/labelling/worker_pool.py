"""Workers on several devices: started, watched, started again when they die; no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from ovsam_cli.errors import DeviceError, OvsamError
from ovsam_cli.labelling.fingerprint import compare_settings
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.labelling.worker_link import (
    Crash,
    Finished,
    Notice,
    RowDone,
    ToParent,
    Work,
    WorkerProcess,
)
from ovsam_cli.structures import ImageRecord

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 60.0  # for a worker that has nothing left to do but to sync its part
# Two deaths tell which batch of several kills, a third which image of it.
MAX_DEATHS_IN_A_ROW = 4

# The function that the worker of a device runs; the batch size is that of the workers before it.
MakeWork = Callable[[str, int | None], Work]


@dataclass(slots=True)
class Task:
    """A batch that was planned, and what is known of it.

    Attributes:
        records: its images.
        wanted: file names of those whose rows are missing.
        num_deaths: workers that died while they had it.
    """

    records: tuple[ImageRecord, ...]
    wanted: set[str]
    num_deaths: int = 0


@dataclass(slots=True)
class Seat:
    """A device's place in the pool.

    Attributes:
        device: torch's name of it.
        worker: the process that is there now, if any.
        is_ready: it has loaded its model.
        part: of the journal, once it may append.
        tasks: what it has.
        is_alone: with one task that a worker died with.
        num_deaths: of its workers, one after another without a result between.
        last_words: why the worker stopped, by itself.
        is_finished: the worker has done all it was asked to, and its part is synced.
        is_given_up: its workers died too often.
    """

    device: str
    worker: WorkerProcess | None = None
    is_ready: bool = False
    part: Path | None = None
    tasks: list[Task] = field(default_factory=list)
    is_alone: bool = False
    num_deaths: int = 0
    last_words: str = ""
    is_finished: bool = False
    is_given_up: bool = False


class WorkerPool:
    """One worker a device; a context manager, whose end kills those that still run.

    Args:
        devices: torch's names; one may stand several times.
        make_work: what a worker does.
        on_message: called with what a person should know.

    Attributes:
        seats: the devices' places.
        facts: what the first worker said of the run; all others must say the same.
    """

    def __init__(
        self, devices: Sequence[str], make_work: MakeWork, *, on_message: Callable[[str], None]
    ) -> None:
        self.seats = [Seat(device) for device in devices]
        self._make_work = make_work
        self._on_message = on_message
        self._facts: RunFacts | None = None
        self._first_device = ""

    @property
    def facts(self) -> RunFacts:
        """Of the run; there from the block's beginning."""
        assert self._facts is not None
        return self._facts

    def __enter__(self) -> Self:
        """Start the first worker and wait until it has its model.

        The others come later: by then what they need is downloaded and cached.

        Raises:
            OvsamError: it cannot have one.
            DeviceError: its process died again and again.
        """
        try:
            while not any(seat.is_ready for seat in self.seats):
                first = next(seat for seat in self.seats if not seat.is_given_up)
                if first.worker is None:
                    self.start(first)
                self.wait()
                is_dead = self.is_dead(first)  # asked first: all it said is in the pipe by then
                for _ in self.receive(first):
                    pass
                if is_dead:
                    self.bury(first)
        except BaseException:
            self.kill_all()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill_all()

    def start(self, seat: Seat) -> None:
        """Start the worker of a seat; it says when it is ready."""
        batch_size = None if self._facts is None else self._facts.batch_size
        seat.worker = WorkerProcess(self._make_work(seat.device, batch_size))
        seat.is_ready, seat.is_finished, seat.part, seat.last_words = False, False, None, ""

    def wait(self) -> list[Seat]:
        """Seats whose worker has said something or ended; none after a moment."""
        owners: dict[Connection | int, Seat] = {}
        for seat in self.seats:
            if seat.worker is not None:
                owners |= {seat.worker.connection: seat, seat.worker.sentinel: seat}
        ready = wait(owners, SECONDS_BETWEEN_LOOKS)
        return [seat for seat in self.seats if any(owners.get(h) is seat for h in ready)]  # type: ignore

    def receive(self, seat: Seat) -> Iterator[RowDone]:
        """Listen to what a worker has said; what concerns its batches is given on.

        Raises:
            OvsamError: it met one that ends the run.
            DeviceError: it does not compute as the others do.
        """
        if seat.worker is None:
            return
        for message in seat.worker.receive():
            if isinstance(message, RowDone):
                yield message
            else:
                self._hear(seat, message)

    def _hear(self, seat: Seat, message: ToParent) -> None:
        if isinstance(message, RunFacts):
            if self._facts is None:
                self._facts, self._first_device = message, seat.device
            _check_same(self._first_device, self._facts, seat.device, message)
            seat.is_ready = True
        elif isinstance(message, Notice):
            self._on_message(message.text)
        elif isinstance(message, Finished):
            seat.is_finished = True
        elif isinstance(message, Crash):
            seat.last_words = message.text
        elif isinstance(message, OvsamError):
            raise message

    def is_dead(self, seat: Seat) -> bool:
        """Whether a seat's worker has ended, asked for or not."""
        return seat.worker is not None and seat.worker.has_ended()

    def bury(self, seat: Seat) -> str:
        """Free the seat of a worker that died; listen first to what it still said.

        Returns:
            How it ended, in words.

        Raises:
            DeviceError: workers died too often, and no other device is left.
        """
        assert seat.worker is not None
        how = seat.last_words or seat.worker.describe_end()
        seat.worker.kill()
        seat.worker = None
        seat.num_deaths += 1
        if seat.num_deaths < MAX_DEATHS_IN_A_ROW:
            self._on_message(f"{seat.device}: its process {how}; what it had is tried again")
            return how
        seat.is_given_up = True
        told = f"{seat.device}: its process died {seat.num_deaths} times in a row; the last {how}"
        if all(other.is_given_up for other in self.seats):
            raise DeviceError(
                f"{told}; no device is left. Finished images are kept: mend this and run the same "
                "command again"
            )
        self._on_message(f"{told}; going on without it")
        return how

    def end(self) -> None:
        """Let workers without work sync their parts, then end them all."""
        for seat in self.seats:
            if seat.worker is not None:
                seat.worker.send(None)
        for _ in self.wind_up():
            pass

    def wind_up(self) -> Iterator[tuple[Seat, RowDone]]:
        """End workers that were told to stop, as soon as they have finished what they had.

        Yields:
            Rows that they still report.
        """
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline:
            # One that has no part has nothing to finish. Python's own end would take seconds.
            for seat in self.seats:
                if seat.worker is not None and (seat.is_finished or seat.part is None):
                    seat.worker.kill()
                    seat.worker = None
            running = [seat for seat in self.seats if seat.worker is not None]
            if not running:
                return
            self.wait()
            for seat in running:
                is_dead = self.is_dead(seat)
                for row in self.receive(seat):
                    yield seat, row
                seat.is_finished |= is_dead

    def kill_all(self) -> None:
        """End all workers now; their rows are on disk."""
        for seat in self.seats:
            if seat.worker is not None:
                seat.worker.kill()
                seat.worker = None


def _check_same(first_device: str, first: RunFacts, device: str, facts: RunFacts) -> None:
    """Refuse devices that would give other results than the first."""
    differences = [
        f"{name} is {one} on {first_device}, {other} on {device}"
        for name, one, other in compare_settings(
            first.fingerprint.settings(), facts.fingerprint.settings()
        )
    ]
    if differences:
        raise DeviceError(
            f"--devices: {'; '.join(differences)}; choose devices of one kind, or --dtype float32"
        )
