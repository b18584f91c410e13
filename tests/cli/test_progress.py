"""Progress where stderr is no terminal: what is counted, how fast, what failed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ovsam_cli.cli import progress
from ovsam_cli.cli.console import Console
from ovsam_cli.cli.progress import count_progress, image_progress
from ovsam_cli.structures import ImageRecord, ImageResult


def make_result(number: int, *, is_bad: bool = False) -> ImageResult:
    record = ImageRecord(Path(f"{number}.jpg"), f"{number}.jpg", number)
    return ImageResult(record, "failed" if is_bad else "empty")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each time."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)


def test_each_kind_of_thing_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Views are described before steps are made: that part of a run said nothing for an hour."""
    with count_progress(Console()) as on_progress:
        on_progress("views", 1, 2)
        on_progress("views", 2, 2)
        on_progress("steps", 1001, 4000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["1/2 views", "2/2 views", "1"]
    assert lines[-1].startswith("1,001/4,000 steps, ")


def test_rates_count_from_where_this_call_began(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing of a kind took the time before it, not none at all."""
    clock = iter([0.0, 0.0, 2.0, 2.0, 6.0, 6.0, 7.0, 7.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with count_progress(Console()) as on_progress:
        on_progress("views", 1, 2)
        on_progress("steps", 11, 14)
        on_progress("steps", 12, 14)
    assert capsys.readouterr().err.splitlines() == [
        "1/2 views, 0.50/s, 2 s left",
        "11/14 steps, 0.25/s, 12 s left",
        "12/14 steps, 0.40/s, 5 s left",
    ]


def test_lines_are_some_seconds_apart_but_the_end_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 60.0)
    with count_progress(Console()) as on_progress:
        for done in range(1, 5):
            on_progress("steps", done, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("4/4 steps, ") and line.endswith(" 0 s left")


def test_images_with_failures(capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress(Console(), total=4, already=1) as on_image_done:
        on_image_done(make_result(2))
        on_image_done(make_result(3, is_bad=True))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("2/4 images, ") and first.endswith("s left")
    assert second.startswith("3/4 images, ") and second.endswith("s left, 1 failed")


def test_quiet_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress(Console(quiet=True), total=1, already=0) as on_image_done:
        on_image_done(make_result(1))
    assert capsys.readouterr() == ("", "")
    with image_progress(Console(as_json=True), total=1, already=0) as on_image_done:
        on_image_done(make_result(1))
    event = json.loads(capsys.readouterr().out)
    assert event["event"] == "image" and event["file_name"] == "1.jpg"


def test_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with image_progress(Console(), total=2, already=0) as on_image_done:
        on_image_done(make_result(1, is_bad=True))
        on_image_done(make_result(2))
    shown = capsys.readouterr().err
    assert "images" in shown and "2/2" in shown and "1 failed" in shown


def test_time_elapsed_is_that_of_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading the weights is part of it: a run of 6 s said 0:00:01."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    console = Console(started=time.monotonic() - 65)
    with count_progress(console) as on_progress:
        on_progress("images", 1, 1)
    shown = capsys.readouterr().err
    assert "0:01:05" in shown or "0:01:06" in shown
