"""Signals, closed streams, too many failures: how a run ends before its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cases import Case, count_rows, slowed, wait_for

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
BROKEN = ("005.png", "013.png", "021.png")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_lets_the_batch_in_hand_end(
    case: Case, whole: bytes, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The batch in flight is finished, the process says how to go on and leaves within 5 s."""
    process = case.start(tmp_path, setup=slowed(0.3))
    wait_for(lambda: count_rows(tmp_path) >= 2)
    rows, start = count_rows(tmp_path), time.monotonic()
    process.send(number)
    ended = process.wait()
    assert time.monotonic() - start < 5
    assert ended.code == code
    assert "finishing the images in hand" in ended.err
    assert f"stopped by signal {int(number)}. Run the same command again" in ended.err
    assert count_rows(tmp_path) > rows  # the batch that was on the device then
    assert not (tmp_path / "annotations.json").exists()
    assert case.run(tmp_path).code == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(
    case: Case, whole: bytes, tmp_path: Path, second: signal.Signals
) -> None:
    """Without waiting for the batch, and without harm: the journal is whole."""
    process = case.start(tmp_path, setup=slowed(3.0))
    wait_for((tmp_path / ".ovsam" / "part-00000.jsonl").exists)
    time.sleep(0.5)
    process.send(signal.SIGINT)
    time.sleep(0.3)
    start = time.monotonic()
    process.send(second)
    ended = process.wait()
    assert time.monotonic() - start < 1
    assert ended.code == -second  # a shell says 128 + number
    assert case.run(tmp_path).code == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_a_batch_that_takes_too_long_is_given_up(case: Case, whole: bytes, tmp_path: Path) -> None:
    """However long a batch takes, a signal ends the process within 5 s."""
    process = case.start(tmp_path, setup=slowed(30.0))
    wait_for((tmp_path / ".ovsam" / "part-00000.jsonl").exists)
    time.sleep(0.5)
    start = time.monotonic()
    process.send(signal.SIGTERM)
    ended = process.wait()
    assert time.monotonic() - start < 5
    assert ended.code == 143
    assert "before all work in hand was done. Run the same command again" in ended.err
    assert case.run(tmp_path).code == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_a_signal_while_weights_are_loaded(case: Case, tmp_path: Path) -> None:
    """Nothing is in flight yet, so it stops there and then."""
    setup = """
import time
from ovsam_cli.labelling import run
run.build_labeller = lambda plan, on_message: time.sleep(60)
"""
    process = case.start(tmp_path, setup=setup)
    wait_for((tmp_path / ".ovsam" / "lock.json").exists)
    time.sleep(0.3)
    start = time.monotonic()
    process.send(signal.SIGTERM)
    ended = process.wait()
    assert (ended.code, "Traceback" in ended.err) == (143, False)
    assert time.monotonic() - start < 2
    assert case.run(tmp_path).code == 0


def test_nohup_is_respected(case: Case, tmp_path: Path) -> None:
    """A signal that was ignored when the command was started stays so."""
    setup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + slowed(0.02)
    process = case.start(tmp_path, setup=setup)
    wait_for(lambda: count_rows(tmp_path) >= 1)
    process.send(signal.SIGHUP)
    assert process.wait().code == 0


def test_stdout_whose_reader_is_gone(case: Case, whole: bytes, tmp_path: Path) -> None:
    """As in `ovsam label ... --json | head -1`: no traceback, and the run goes on."""
    setup = "import os; ends = os.pipe(); os.dup2(ends[1], 1); [os.close(end) for end in ends]"
    ended = case.run(tmp_path, "--json", setup=setup)
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_streams_closed_from_the_start(case: Case, whole: bytes, tmp_path: Path) -> None:
    """As by `ovsam label ... <&- >&- 2>&-`: no file of the run takes a stream's place."""
    words = [str(word) for word in (sys.executable, "-m", "ovsam_cli", *case.args(tmp_path))]
    line = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words]
    assert subprocess.run(line, check=False, timeout=120).returncode == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_stdout_that_is_full(case: Case, tmp_path: Path) -> None:
    """One line and exit code 1; the files are there."""
    setup = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    ended = case.run(tmp_path, setup=setup)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: stdout cannot be written: No space left")
    assert (tmp_path / "annotations.json").exists()


def test_a_folder_whose_name_is_not_utf8(case: Case, tmp_path: Path) -> None:
    """Its path goes to stdout as its own bytes."""
    out = tmp_path / "out-\udcff"
    ended = case.run(out)
    assert ended.code == 0, ended.err
    assert ended.out == f"{out}/annotations.json\n"


def test_too_many_failures_stop_the_run(case: Case, whole: bytes, tmp_path: Path) -> None:
    """`--max-failures`: exit 1 naming the last one; once mended, `--retry-failed` goes on."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in case.photos.iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    good = (photos / "005.png").read_bytes()
    for name in BROKEN:
        (photos / name).write_bytes(good[:200])
    args = case.args(tmp_path / "out")
    args[1] = photos
    ended = case.starter.run([*args, "--max-failures", "0"], setup=slowed(0.05))
    assert ended.code == 1
    assert "1 image(s) failed, more than --max-failures 0 (the last: " in ended.err
    rows = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert [json.loads(row)["file_name"] for row in rows] == [BROKEN[0]]
    assert not (tmp_path / "out" / "annotations.json").exists()
    assert 6 <= count_rows(tmp_path / "out") < 20
    assert case.starter.run([*args, "--max-failures", "0"]).code == 1  # earlier starts count
    assert case.starter.run([*args, "--strict"]).code == 1
    assert case.starter.run(args).code == 3
    for name in BROKEN:
        (photos / name).write_bytes((case.photos / name).read_bytes())
    assert case.starter.run(args).code == 3  # failed images have a row too
    ended = case.starter.run([*args, "--retry-failed"])
    assert (ended.code, "3 images labelled" in ended.err) == (0, True)
    assert (tmp_path / "out" / "annotations.json").read_bytes() == whole
