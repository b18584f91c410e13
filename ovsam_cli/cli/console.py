"""The terminal: messages, one-line errors and exit codes. Only this package prints."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TextIO

import typer

from ovsam_cli.cli.stopping import StopSignals, interrupted_code, write_stderr
from ovsam_cli.errors import CheckpointError, InputError, OutputError, OvsamError


class ExitCode(IntEnum):
    """What a shell script can rely on."""

    FINISHED = 0
    STOPPED = 1
    INVALID_INPUT = 2
    SOME_FAILED = 3
    NO_WEIGHTS = 4
    NOTHING_WRITTEN = 5


EXIT_CODE_HELP = (
    "Exit codes: 0 finished; 1 stopped (disk, lock, device, --max-failures), or images failed "
    "under --strict; 2 invalid input; 3 finished, some images failed (see errors.jsonl); "
    "4 weights missing, corrupt or unreachable; 5 finished without a single annotation (images "
    "may have failed); "
    "130, 143, 129 interrupted (INT, TERM, HUP), run again to go on."
)


@dataclass(frozen=True, slots=True)
class Console:
    """How a command talks: `quiet` keeps errors only; `as_json` puts events on stdout.

    Attributes:
        started: when the command began, by the monotonic clock, in seconds.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    started: float = field(default_factory=time.monotonic, compare=False)

    def say(self, text: str) -> None:
        """A message for a person, on stderr."""
        if not self.quiet and not self.as_json:
            _write(text, err=True)

    def detail(self, text: str) -> None:
        """A message for a person who asked for more (`-v`)."""
        if self.verbose:
            self.say(text)

    def result(self, text: str) -> None:
        """The command's own answer, on stdout.

        Raises:
            OutputError: stdout cannot be written.
        """
        if not self.as_json:
            _write(text)

    def event(self, name: str, fields: dict[str, object]) -> None:
        """One JSON line on stdout, when asked for by `--json`.

        Raises:
            OutputError: stdout cannot be written.
        """
        if self.as_json:
            line = {"ts": round(time.time(), 3), "level": "info", "event": name, **fields}
            _write(json.dumps(line, allow_nan=False))

    def error(self, text: str) -> None:
        """One line on stderr: what was wrong and what to do."""
        if self.as_json:
            line = {"ts": round(time.time(), 3), "level": "error", "event": "error", "text": text}
            with suppress(OutputError):  # stderr says it too
                _write(json.dumps(line))
        word = "error: " if _is_plain() else typer.style("error: ", fg="red", bold=True)
        _write(word, err=True, nl=False)
        _write(" ".join(text.splitlines()), err=True)


def _is_plain() -> bool:
    """Whether the user wants no colors, as no-color.org says, or the terminal has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def _write(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write to stdout or stderr; where nobody reads any more, nobody needs to hear."""
    try:
        try:
            typer.echo(text, err=err, nl=nl)
        except UnicodeEncodeError:  # a file name that is not UTF-8 goes out as its own bytes
            typer.echo(os.fsencode(text), err=err, nl=nl)
    except BrokenPipeError:
        _drop(sys.stderr if err else sys.stdout)
    except OSError as error:
        if not err:
            _drop(sys.stdout)
            raise OutputError(f"stdout cannot be written: {error.strerror or error}") from error


def _drop(stream: TextIO) -> None:
    """Let what is still to come on a stream go nowhere, the interpreter's last flush included."""
    with suppress(OSError, ValueError):  # a stream without a descriptor has no reader to lose
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_standard_streams() -> None:
    """Where a program was started with closed streams, keep its files from taking their places."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free place, which is this one


def exit_code_of(error: OvsamError) -> ExitCode:
    """The exit code of an error class."""
    if isinstance(error, InputError):
        return ExitCode.INVALID_INPUT
    if isinstance(error, CheckpointError):
        return ExitCode.NO_WEIGHTS
    return ExitCode.STOPPED


@contextmanager
def one_line_errors(
    console: Console, *, how_to_resume: str = "", seconds_to_stop: float | None = None
) -> Iterator[StopSignals]:
    """Turn errors a user can mend into one line and an exit code; never a traceback.

    Args:
        console: where to say it.
        how_to_resume: what to say after a signal.
        seconds_to_stop: how long an orderly stop may take after a signal; None is unlimited.

    Yields:
        The signals, for work that can end in good order by itself.
    """

    def say_late(number: int) -> None:
        if not console.quiet and not console.as_json:
            text = f"{_describe_stop(number)} before all work in hand was done. {how_to_resume}"
            write_stderr(f"{text}\n".encode())

    with StopSignals(seconds_to_stop, say_late) as signals:
        try:
            yield signals
        except OvsamError as error:
            console.error(str(error))
            raise typer.Exit(exit_code_of(error)) from None
        except BrokenPipeError:
            _drop(sys.stdout)
            raise typer.Exit(ExitCode.STOPPED) from None
        except KeyboardInterrupt:
            number = signals.number or signal.SIGINT
            console.say(f"{_describe_stop(number)}. {how_to_resume}".rstrip())
            console.event("interrupted", {"signal": int(number)})
            raise typer.Exit(interrupted_code(number)) from None


def _describe_stop(number: int) -> str:
    return f"stopped by signal {int(number)}"
