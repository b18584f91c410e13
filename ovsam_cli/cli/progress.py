"""Progress of long work that is counted: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ovsam_cli.cli.console import SECONDS_BETWEEN_LINES, Console


@contextmanager
def count_progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields the function to call with (how many are done, of how many).

    Args:
        console: says whether progress is wanted at all.
        what: is counted, such as `steps`.
    """
    if console.quiet or console.as_json:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        yield from _bar(what)
    else:
        yield _lines(console, what)


def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
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
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=RichConsole(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(console: Console, what: str) -> Callable[[int, int], None]:
    last_line = started = time.monotonic()
    first = -1  # a resumed run begins in the middle, and its rate counts from there

    def on_progress(done: int, total: int) -> None:
        nonlocal first, last_line
        first = done - 1 if first < 0 else first
        now = time.monotonic()
        if now - last_line < SECONDS_BETWEEN_LINES and done < total:
            return
        last_line = now
        rate = (done - first) / max(now - started, 1e-9)
        left = (total - done) / rate
        console.say(f"{done:,}/{total:,} {what}, {rate:.2f}/s, {left:.0f} s left")

    return on_progress


def is_first_rank() -> bool:
    """Of several processes that torchrun started, one speaks."""
    return os.environ.get("RANK", "0") == "0"
