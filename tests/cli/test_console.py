"""Errors become one line and an exit code; signals become an orderly stop."""

from __future__ import annotations

import os
import signal
import time

import pytest
import typer

from ovsam_cli.cli.console import Console, one_line_errors
from ovsam_cli.errors import (
    CheckpointError,
    DeviceError,
    InputError,
    OutputError,
    OvsamError,
    VocabularyError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (VocabularyError("x"), 2),
        (CheckpointError("x"), 4),
        (DeviceError("x"), 1),
        (OutputError("x"), 1),
    ],
)
def test_exit_code_of_each_error(
    error: OvsamError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as exit_, one_line_errors(Console()):
        raise error
    assert exit_.value.exit_code == code
    assert capsys.readouterr().err == "error: x\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_stop_with_their_code(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; tests may run there.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        pytest.raises(typer.Exit) as exit_,
        one_line_errors(Console(), how_to_resume="Run the same command again to go on."),
    ):
        os.kill(os.getpid(), number)
        time.sleep(10)
        pytest.fail("the signal did not arrive")
    signal.signal(signal.SIGINT, old)
    assert exit_.value.exit_code == code
    assert "Run the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), one_line_errors(Console()):
        raise InputError("first\nsecond")
    assert capsys.readouterr().err == "error: first second\n"


def test_quiet_and_json_keep_stdout_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.say("for people")
    console.result("the answer")
    console.event("finished", {"num_images": 2})
    shown = capsys.readouterr()
    assert '"event": "finished"' in shown.out and "answer" not in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("variables", "is_colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colors_only_where_they_are_wanted(
    variables: dict[str, str], is_colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shown: list[str] = []
    monkeypatch.setattr(typer, "echo", lambda text, **_: shown.append(text))
    Console().error("x")
    assert ("\x1b[" in "".join(shown)) is is_colored
