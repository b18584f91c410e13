"""How a run ends before its end: signals, asked about between steps, and failures explained."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

import torch

from ovsam_cli.errors import DeviceError

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class StopSignals:
    """Notes a signal instead of acting on it; the same one again acts at once.

    (Another one does not: torchrun answers Ctrl-C, which its processes got too, with SIGTERM.)
    Signals that were ignored from the start stay so: `nohup` asks for that.
    Outside the main thread, where Python handles no signals, it notes nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._noted: set[int] = set()
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._noted:
            self._restore()
            signal.raise_signal(number)
        self._noted.add(number)
        self.number = self.number or number

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}


def explain_failure(error: RuntimeError, device: torch.device) -> Exception:
    """What a user can mend as a DeviceError that says how; else the error itself."""
    if isinstance(error, torch.OutOfMemoryError):
        return DeviceError(
            f"{device}: out of memory in training; make micro-batches smaller and accumulate more "
            "of them, or train in bfloat16"
        )
    if "DataLoader worker" in str(error):
        return DeviceError(
            f"a process that makes micro-batches was killed ({error}); where memory is short, "
            "take fewer workers"
        )
    return error
