"""Signals: the first stops in good order and within seconds, a second at once.

Neither harms a run. What is finished is in the journal, whose rows check themselves, and result
files are written beside their targets.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STDERR = 2


def interrupted_code(number: int) -> int:
    """The exit code of a command that a signal stopped, as shells give it."""
    return 128 + number


class StopSignals:
    """While its block runs, a signal raises KeyboardInterrupt once, or is only noted.

    Signals that were ignored from the start stay so: `nohup` asks for that, and shells do for
    jobs in the background. Outside the main thread, where Python handles no signals, it does
    nothing.

    Args:
        seconds: how long an orderly stop may take before the process leaves all the same; None
            is as long as it needs.
        on_late: called in another thread before that, with the signal's number.

    Attributes:
        number: of the first signal, 0 before.
    """

    def __init__(self, seconds: float | None, on_late: Callable[[int], None]) -> None:
        self.number = 0
        self._seconds = seconds
        self._on_late = on_late
        self._notice = b""
        self._is_noted_only = False
        self._previous: dict[int, signal._HANDLER] = {}
        # What a signal handler may touch: putting here never waits for a lock.
        self._noted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._is_over = threading.Event()

    def is_wanted(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    @contextmanager
    def noted(self, notice: str) -> Iterator[Self]:
        """In this block a signal is only noted; the block asks `is_wanted` and ends by itself.

        Args:
            notice: written to stderr when the signal comes; may be empty.
        """
        self._notice, self._is_noted_only = notice.encode(), True
        try:
            yield self
        finally:
            self._notice, self._is_noted_only = b"", False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        if self._previous and self._seconds is not None:
            threading.Thread(target=self._watch, daemon=True, name="stop").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._noted.put(0)
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # The system's own action needs no Python, so it comes at once whatever runs now.
        for other in self._previous:
            signal.signal(other, signal.SIG_DFL)
        self.number = number
        self._noted.put(number)
        if not self._is_noted_only:
            raise KeyboardInterrupt
        if self._notice:
            write_stderr(self._notice)

    def _watch(self) -> None:
        number = self._noted.get()
        if number and not self._is_over.wait(self._seconds):
            self._on_late(number)
            os._exit(interrupted_code(number))


def write_stderr(text: bytes) -> None:
    """Write past all buffers and locks, as a signal handler must."""
    try:
        os.write(STDERR, text)
    except OSError:  # closed, or its reader is gone
        return
