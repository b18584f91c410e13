"""Row 1 of the fault table: kill -9 at any moment."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from cases import NUM_IMAGES, Case, count_rows, slowed

SECONDS_A_BATCH = 0.05


def _kill_often(case: Case, whole: bytes, folder: Path, *, kills: int, seed: int) -> None:
    """Kill runs until that many were killed, each started by the same command as before."""
    rng = random.Random(seed)
    killed, number = 0, 0
    while killed < kills:
        out = folder / f"out-{number}"
        rows = count_rows(out)
        process = case.start(out, setup=slowed(SECONDS_A_BATCH))
        deadline = time.monotonic() + rng.uniform(0, 1.2)
        while process.is_running and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send(signal.SIGKILL)
        ended = process.wait()
        killed += ended.code == -signal.SIGKILL
        assert ended.code in (0, -signal.SIGKILL), ended.err
        assert count_rows(out) >= rows
        result = out / "annotations.json"
        assert not result.exists() or result.read_bytes() == whole
        if result.exists():
            number += 1  # a new run to kill
    for out in folder.iterdir():
        rows = count_rows(out)
        ended = case.run(out, "--json")
        assert ended.code == 0, ended.err
        # A killed process loses no row it had written, so no finished image is labelled again.
        assert ended.out.count('"event": "image"') <= NUM_IMAGES - rows + 1
        assert (out / "annotations.json").read_bytes() == whole
        assert sorted(path.name for path in out.iterdir()) == [
            *(".ovsam", "annotations.json", "errors.jsonl", "report.html", "run.json")
        ]


def test_five_kills(case: Case, whole: bytes, tmp_path: Path) -> None:
    """Killed runs, run again, give byte for byte the file of a run that nothing happened to; no
    finished image is labelled again; the final path never holds a part of a file.
    """
    _kill_often(case, whole, tmp_path, kills=5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_twenty_kills(case: Case, whole: bytes, tmp_path: Path, seed: int) -> None:
    """The same with twenty."""
    _kill_often(case, whole, tmp_path, kills=20, seed=seed)
