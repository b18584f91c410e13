"""Several devices: one process each, which may be killed, stopped, or left by their parent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from cases import Case, count_rows, wait_for
from starting import Process
from worker_setup import SLOWED_WORKERS

SLOWED = SLOWED_WORKERS.format(seconds=0.2)
TWO = ("--devices", "cpu,cpu")


def find_workers(process: Process) -> list[int]:
    """Processes that a run has started to compute."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == process.pid and b"spawn_main" in words:
            found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_two_processes_and_a_killed_one(case: Case, whole: bytes, tmp_path: Path) -> None:
    """The file of one process, byte for byte, though a worker is killed in the middle; the bar and
    the previews are there as ever.
    """
    process = case.start(tmp_path, *TWO, "--previews", "3", setup=SLOWED)
    wait_for(lambda: count_rows(tmp_path) >= 4, 120)
    os.kill(find_workers(process)[0], signal.SIGKILL)
    ended = process.wait(200)
    assert ended.code == 0, ended.err
    assert "cpu: its process was killed by signal 9" in ended.err
    assert "24/24 images" in ended.err
    assert (tmp_path / "annotations.json").read_bytes() == whole
    assert len(list((tmp_path / "previews").iterdir())) == 3
    before = (tmp_path / "annotations.json").stat().st_ino
    assert case.run(tmp_path).code == 0  # one process goes on where two were, and finds it done
    assert (tmp_path / "annotations.json").stat().st_ino == before


def test_ctrl_c_goes_to_all_and_the_parent_decides(
    case: Case, whole: bytes, tmp_path: Path
) -> None:
    """A terminal sends it to parent and workers; within 5 s all have left, nothing is lost."""
    process = case.start(tmp_path, *TWO, setup=SLOWED)
    wait_for(lambda: count_rows(tmp_path) >= 3, 120)
    workers, start = find_workers(process), time.monotonic()
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    process.send(signal.SIGINT)
    ended = process.wait(200)
    assert time.monotonic() - start < 5
    assert ended.code == 130, ended.err
    assert "finishing the images in hand" in ended.err and "Traceback" not in ended.err
    assert not any(map(is_alive, workers))
    assert 3 <= count_rows(tmp_path) < 24
    assert case.run(tmp_path).code == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(case: Case, whole: bytes, tmp_path: Path) -> None:
    """The next run meets nobody who writes: they end as soon as nobody reads their reports, or as
    they have loaded.
    """
    process = case.start(tmp_path, *TWO, setup=SLOWED)
    wait_for(lambda: count_rows(tmp_path) >= 3, 120)
    workers = find_workers(process)
    process.send(signal.SIGKILL)
    process.wait(200)
    wait_for(lambda: not any(map(is_alive, workers)), 60)
    ended = case.run(tmp_path, *TWO, timeout=200)
    assert ended.code == 0, ended.err
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_a_device_that_is_not_there(case: Case, tmp_path: Path) -> None:
    for devices, message in [
        ("cpu,cuda:7", "cuda:7 is not on this machine"),
        ("cpu,auto", "expected auto, cpu, mps, cuda"),
        ("cpu,", "expected auto, cpu, mps, cuda"),
    ]:
        ended = case.run(tmp_path, "--devices", devices)
        assert (ended.code, message in ended.err) == (2, True), ended.err
