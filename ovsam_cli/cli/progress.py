"""Progress of long work that is counted: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ovsam_cli.cli.console import Console

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ovsam_cli.structures import ImageResult

SECONDS_BETWEEN_LINES = 10.0  # where stderr is not a terminal


class OnProgress(Protocol):
    """Told how far something is; one that begins at `done` > 0 was stopped before."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` things, such as `steps`; the note is a warning to go with it."""


@contextmanager
def count_progress(console: Console) -> Iterator[OnProgress]:
    """Yields the function to call; what is counted may change on the way.

    Args:
        console: says whether progress is wanted at all.
    """
    if console.quiet or console.as_json:
        yield lambda what, done, total, note="": None
    elif sys.stderr.isatty():
        yield from _bars(console.started)
    else:
        yield _Lines(console)


@contextmanager
def image_progress(
    console: Console, total: int, already: int
) -> Iterator[Callable[[ImageResult], None]]:
    """Yields the function to call with each finished image; JSON events with `--json`.

    Args:
        console: says whether progress is wanted at all.
        total: images of the run.
        already: those done before.
    """
    done, failed = already, 0
    with count_progress(console) as on_progress:

        def on_image_done(result: ImageResult) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + (result.status == "failed")
            console.event("image", {"file_name": result.record.file_name, "status": result.status})
            on_progress("images", done, total, f"{failed} failed" if failed else "")

        yield on_image_done


class _Rates:
    """Things a second, by kind, of this call: work taken up again begins in its middle.

    The first of a kind took the time since anything was counted before.
    """

    def __init__(self) -> None:
        self.last_call = time.monotonic()
        self.begun: dict[str, tuple[int, float]] = {}

    def compute(self, what: str, done: int) -> float:
        first, started = self.begun.setdefault(what, (done - 1, self.last_call))
        self.last_call = time.monotonic()
        return (done - first) / max(self.last_call - started, 1e-9)


def _bars(started: float) -> Iterator[OnProgress]:
    """Bars whose time elapsed is that of the whole command: loading weights is part of it.

    Args:
        started: when the command began, by the monotonic clock, in seconds.
    """
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[note]}[/red]"),
    )
    tasks: dict[str, TaskID] = {}
    rates = _Rates()
    screen = RichConsole(stderr=True)
    with Progress(*columns, console=screen, get_time=time.monotonic) as progress:

        def on_progress(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, rate="", note="")
                progress.tasks[-1].start_time = started
            rate = f"{rates.compute(what, done):.2f}/s"
            progress.update(tasks[what], completed=done, total=total, rate=rate, note=note)

        yield on_progress


class _Lines:
    """Says how far it is, now and then and at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rates = _Rates()
        self.last_line = time.monotonic()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        speed = self.rates.compute(what, done)
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and done < total:
            return
        self.last_line = now
        left = (total - done) / speed
        more = f", {note}" if note else ""
        self.console.say(f"{done:,}/{total:,} {what}, {speed:.2f}/s, {left:.0f} s left{more}")


def is_first_rank() -> bool:
    """Of several processes that torchrun started, one speaks."""
    return os.environ.get("RANK", "0") == "0"
