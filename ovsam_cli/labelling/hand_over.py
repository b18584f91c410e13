"""The threads behind the device: finishing in several, writing in one, memory between bounded."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from ovsam_cli.structures import ImageResult

Made = TypeVar("Made")
# Logits on their way from the device to their masks; about 1000 masks of 256 x 256. A CPU that
# computes more of them before their masks are made gains nothing.
MAX_BYTES, MAX_BYTES_ON_CPU = 256 << 20, 16 << 20
# Of images kept at their own size until their results are written.
MAX_RESULT_BYTES = 256 << 20
BYTES_A_PROMISE = 1 << 20  # results are small; this bounds how many wait for the writer


def count_finishers(device_type: str) -> int:
    """Threads that make masks and rows: on the CPU the network needs the cores."""
    return 1 if device_type == "cpu" else max(1, min(8, (os.cpu_count() or 2) // 2))


def choose_max_bytes(device_type: str) -> int:
    """Of logits that may wait for a finishing thread."""
    return MAX_BYTES_ON_CPU if device_type == "cpu" else MAX_BYTES


class ByteBudget:
    """Memory that may be in use between two stages; the first to want more waits.

    Args:
        limit: bytes. One item larger than that passes alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._is_lifted = False
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._used

    def acquire(self, num_bytes: int) -> None:
        """Wait until there is room."""
        with self._changed:
            while self._used and self._used + num_bytes > self._limit and not self._is_lifted:
                self._changed.wait()
            self._used += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give room back."""
        with self._changed:
            self._used -= num_bytes
            self._changed.notify_all()

    def lift(self) -> None:
        """Let everyone pass: nobody gives room back any more."""
        with self._changed:
            self._is_lifted = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Promise:
    results: Future[Sequence[ImageResult]]
    num_bytes: int


class HandOver:
    """Takes work off the device's thread and writes results in the order they were promised.

    A context manager. The first error of any stage ends the work: `check` raises it in the
    device's thread, and so does leaving. When the device's thread stops by an error or Ctrl-C,
    what is finished by then is still written, and nothing else is begun.

    Args:
        write: called in one thread, with one result at a time.
        num_threads: finishing threads.
        max_bytes: of logits waiting to be finished.
    """

    def __init__(
        self, write: Callable[[ImageResult], None], *, num_threads: int, max_bytes: int = MAX_BYTES
    ) -> None:
        self._write = write
        self._budget = ByteBudget(max_bytes)
        self._result_budget = ByteBudget(MAX_RESULT_BYTES)
        self._finishers = ThreadPoolExecutor(num_threads, thread_name_prefix="finish")
        self._promised: queue.SimpleQueue[_Promise | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="write")

    def submit(self, work: Callable[[], Made], num_bytes: int) -> Future[Made]:
        """Run `work` in a finishing thread, once there is room for what it holds."""
        self.check()
        self._budget.acquire(num_bytes)

        def run() -> Made:
            try:
                return work()
            finally:
                self._budget.release(num_bytes)

        return self._finishers.submit(run)

    def promise(self, make: Callable[[], Sequence[ImageResult]], num_bytes: int = 0) -> None:
        """Have results made in a finishing thread, and written after those promised before.

        Args:
            make: may wait for futures of `submit`, because these began before it.
            num_bytes: what is held until the results are written.
        """
        self.check()
        num_bytes += BYTES_A_PROMISE
        self._result_budget.acquire(num_bytes)
        self._promised.put(_Promise(self._finishers.submit(make), num_bytes))

    def check(self) -> None:
        """Raise the first error of another stage, if there was one."""
        if self._writing.done():
            self._writing.result()

    def _write_all(self) -> None:
        try:
            while (promise := self._promised.get()) is not None:
                self._write_promised(promise.results)
                self._result_budget.release(promise.num_bytes)
                del promise  # with its results: the next one may come long after
        finally:  # nobody may wait for a writer that is gone
            self._budget.lift()
            self._result_budget.lift()

    def _write_promised(self, made: Future[Sequence[ImageResult]]) -> None:
        # What stopped the work is told by the device's thread.
        if not self._stopping.is_set() or (made.done() and made.exception() is None):
            for result in made.result():
                self._write(result)

    def __enter__(self) -> HandOver:
        self._writing = self._writers.submit(self._write_all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stopping.set()
            self._finishers.shutdown(wait=False, cancel_futures=True)
        self._promised.put(None)
        self._writers.shutdown(wait=True)
        self._finishers.shutdown(wait=True, cancel_futures=True)
        if error is None:
            self.check()
