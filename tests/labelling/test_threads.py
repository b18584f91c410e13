"""Threads of a process on a CPU decide the last digits: equal runs have equally many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATE = ".ovsam"


def label(out: Path, *more: str, threads: str | None = None) -> bytes:
    """Label the examples in a process of its own; what it wrote."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    arguments = (
        "label",
        "examples/scene_1.jpg",
        "examples/scene_2.jpg",
        "--vocab",
        "examples/names.txt",
        "--model",
        "tiny",
    )
    arguments += ("--grid", "3", "--min-stability", "0", "--no-report", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "ovsam_cli", *arguments, "--out", str(out), *more],
        cwd=ROOT,
        env=kept if threads is None else kept | {"OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return (out / "annotations.json").read_bytes()


def read_threads(out: Path) -> int:
    settings = json.loads((out / STATE / "manifest.json").read_bytes())["settings"]
    assert settings["options.device"] == "cpu"
    return int(settings["options.threads"])


def forget_half(out: Path) -> None:
    """Leave what a run has that was killed half way."""
    (part,) = (out / STATE).glob("part-*.jsonl")
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[: len(lines) // 2]))
    (out / STATE / "finished.json").unlink()
    (out / "annotations.json").unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """What one process writes that is told nothing of threads, and where."""
    out = tmp_path_factory.mktemp("threads") / "whole"
    return label(out), out


def test_two_processes_take_as_many_threads_each_as_one_alone(
    whole: tuple[bytes, Path], tmp_path: Path
) -> None:
    """Hence the same file, without any variable set."""
    assert label(tmp_path / "two", "--devices", "cpu,cpu") == whole[0]
    assert read_threads(tmp_path / "two") == read_threads(whole[1])


def test_a_run_goes_on_with_the_threads_it_began_with(
    whole: tuple[bytes, Path], tmp_path: Path
) -> None:
    """Whatever the variable says by then."""
    asked = str(read_threads(whole[1]))
    before = label(tmp_path / "run", "--threads", asked, threads="1")
    assert before == whole[0]
    forget_half(tmp_path / "run")
    assert label(tmp_path / "run", threads="1") == before
    assert read_threads(tmp_path / "run") == int(asked)


def test_other_threads_are_refused_by_name(whole: tuple[bytes, Path]) -> None:
    """They would give half a run with other digits."""
    other = str(read_threads(whole[1]) + 1)
    with pytest.raises(AssertionError, match=rf"options\.threads: was \d+, now {other}"):
        label(whole[1], "--threads", other)
    assert (whole[1] / "annotations.json").read_bytes() == whole[0]
