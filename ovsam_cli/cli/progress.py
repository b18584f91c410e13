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
        yield from _bars()
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


class _Rate:
    """Things a second since counting began, which for work taken up again is in its middle."""

    def __init__(self, done: int) -> None:
        self.first, self.started = done - 1, time.monotonic()

    def compute(self, done: int) -> float:
        return (done - self.first) / max(time.monotonic() - self.started, 1e-9)


def _bars() -> Iterator[OnProgress]:
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
    tasks: dict[str, tuple[TaskID, _Rate]] = {}
    with Progress(*columns, console=RichConsole(stderr=True)) as progress:

        def on_progress(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = (progress.add_task(what, rate="", note=""), _Rate(done))
            task, rate = tasks[what]
            shown = f"{rate.compute(done):.2f}/s"
            progress.update(task, completed=done, total=total, rate=shown, note=note)

        yield on_progress


class _Lines:
    """Says how far it is, now and then and at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rates: dict[str, _Rate] = {}
        self.last_line = time.monotonic()

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        rate = self.rates.setdefault(what, _Rate(done))
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and done < total:
            return
        self.last_line = now
        speed = rate.compute(done)
        left = (total - done) / speed
        more = f", {note}" if note else ""
        self.console.say(f"{done:,}/{total:,} {what}, {speed:.2f}/s, {left:.0f} s left{more}")


def is_first_rank() -> bool:
    """Of several processes that torchrun started, one speaks."""
    return os.environ.get("RANK", "0") == "0"
