"""The terminal: messages, one-line errors and exit codes. Only this package prints."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

import typer

from ovsam_cli.errors import CheckpointError, InputError, OvsamError


class ExitCode(IntEnum):
    """What a shell script can rely on."""

    FINISHED = 0
    STOPPED = 1
    INVALID_INPUT = 2
    SOME_FAILED = 3
    NO_WEIGHTS = 4
    NOTHING_WRITTEN = 5


EXIT_CODE_HELP = (
    "Exit codes: 0 finished; 1 stopped (disk, lock, device); 2 invalid input; "
    "3 finished, some images failed (see errors.jsonl); 4 weights missing, corrupt or "
    "unreachable; 5 finished without a single annotation; 130, 143, 129 interrupted."
)


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP, turned into the same orderly stop as Ctrl-C."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


@dataclass(frozen=True, slots=True)
class Console:
    """How a command talks: `quiet` keeps errors only; `as_json` puts events on stdout."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False

    def say(self, text: str) -> None:
        """A message for a person, on stderr."""
        if not self.quiet and not self.as_json:
            typer.echo(text, err=True)

    def detail(self, text: str) -> None:
        """A message for a person who asked for more (`-v`)."""
        if self.verbose:
            self.say(text)

    def result(self, text: str) -> None:
        """The command's own answer, on stdout."""
        if not self.as_json:
            typer.echo(text)

    def event(self, name: str, fields: dict[str, object]) -> None:
        """One JSON line on stdout, when asked for by `--json`."""
        if self.as_json:
            line = {"ts": round(time.time(), 3), "level": "info", "event": name, **fields}
            typer.echo(json.dumps(line, allow_nan=False))

    def error(self, text: str) -> None:
        """One line on stderr: what was wrong and what to do."""
        if self.as_json:
            line = {"ts": round(time.time(), 3), "level": "error", "event": "error", "text": text}
            typer.echo(json.dumps(line))
        typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
        typer.echo(" ".join(text.splitlines()), err=True)


def exit_code_of(error: OvsamError) -> ExitCode:
    """The exit code of an error class."""
    if isinstance(error, InputError):
        return ExitCode.INVALID_INPUT
    if isinstance(error, CheckpointError):
        return ExitCode.NO_WEIGHTS
    return ExitCode.STOPPED


@contextmanager
def one_line_errors(console: Console, *, how_to_resume: str = "") -> Iterator[None]:
    """Turn errors a user can mend into one line and an exit code; never a traceback."""
    previous = {number: signal.signal(number, _interrupt) for number in _signals()}
    try:
        yield
    except OvsamError as error:
        console.error(str(error))
        raise typer.Exit(exit_code_of(error)) from None
    except BrokenPipeError:
        # The reader of stdout has gone; silence the interpreter's own flush at exit.
        sys.stdout = None
        raise typer.Exit(ExitCode.STOPPED) from None
    except KeyboardInterrupt as stop:
        number = stop.signal_number if isinstance(stop, Interrupted) else signal.SIGINT
        console.say(f"stopped by signal {int(number)}. {how_to_resume}".rstrip())
        console.event("interrupted", {"signal": int(number)})
        raise typer.Exit(128 + int(number)) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)
