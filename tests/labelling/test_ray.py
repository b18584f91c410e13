"""A real Ray cluster of two processes on this machine; one is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_model import write_photos

pytestmark = [pytest.mark.ray, pytest.mark.skipif(find_spec("ray") is None, reason="no Ray")]
SECONDS = 600
NUM_IMAGES = 40


@pytest.fixture
def arguments(checkpoint: Path, tmp_path: Path) -> list[str]:
    """Of a run over forty images, one of them damaged."""
    folder = write_photos(tmp_path / "photos")
    generator = np.random.default_rng(0)
    for number in range(NUM_IMAGES - 3):
        pixels = generator.integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    (folder / "damaged.jpg").write_bytes(b"no image")
    return [
        *("label", str(folder), "--vocab", "cat, dog, zebra", "--grid", "2"),
        *("--min-stability", "0", "--model", str(checkpoint)),
    ]


def start(arguments: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OVSAM_CACHE": str(tmp_path / "cache"),
        "RAY_TMPDIR": "/tmp/ovsam-ray",  # sockets must have short names
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ovsam_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(arguments: list[str], tmp_path: Path) -> tuple[int, str]:
    process = start(arguments, tmp_path)
    _, errors = process.communicate(timeout=SECONDS)
    return process.returncode, errors


def find_actors(parent: int) -> list[int]:
    """Processes of `RayLabeller` below a process."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()[1:]]
    family, found = {parent}, []
    for _ in range(6):
        family |= {int(pid) for pid, ppid, _ in rows if int(ppid) in family}
    for pid, _, command in rows:
        if int(pid) in family and "ray::MapWorker" in command:
            found.append(int(pid))
    return found


def count_notes(parts: Path) -> int:
    return len([path for path in parts.glob("_ledger/part-*.json") if ".try." not in path.name])


def export(parts: Path, out: Path, tmp_path: Path) -> bytes:
    code, errors = run(["export", "coco", str(parts), "--out", str(out)], tmp_path)
    assert code == 0, errors
    return out.read_bytes()


def test_a_killed_worker_costs_nothing(arguments: list[str], tmp_path: Path) -> None:
    """Its part is labelled again by the process that takes its place; the file is that of one
    local process; the same command once more finds all done, other settings are refused."""
    code, errors = run([*arguments, "--devices", "cpu", "--out", str(tmp_path / "one")], tmp_path)
    assert code == 3, errors
    parts = tmp_path / "parts"
    on_ray = [*arguments, "--engine", "ray", "--devices", "cpu,cpu", "--out", str(parts)]
    process = start(on_ray, tmp_path)
    deadline = time.monotonic() + SECONDS
    while count_notes(parts) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victims = find_actors(process.pid)
    os.kill(victims[0], signal.SIGKILL)
    at_kill = count_notes(parts)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, errors
    assert len(victims) == 2 and at_kill < count_notes(parts)
    assert "Traceback" not in errors
    wanted = (tmp_path / "one" / "annotations.json").read_bytes()
    assert export(parts, tmp_path / "ray.json", tmp_path) == wanted
    rows = map(json.loads, (parts / "_ledger" / "errors.jsonl").read_text().splitlines())
    assert [row["file_name"] for row in rows if row["level"] == "error"] == ["damaged.jpg"]

    before = {path: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    code, errors = run(on_ray, tmp_path)
    assert code == 3 and "0 images labelled" in errors
    assert {path: path.stat().st_mtime_ns for path in parts.glob("part-*")} == before
    code, errors = run([*on_ray, "--top-k", "1"], tmp_path)
    assert code == 2 and "options.top_k: was 5, now 1" in errors


def test_a_stopped_run_goes_on(arguments: list[str], tmp_path: Path) -> None:
    """SIGTERM ends it within seconds with the code for it, and complete parts stay."""
    parts = tmp_path / "parts"
    on_ray = [*arguments, "--engine", "ray", "--devices", "cpu,cpu", "--out", str(parts)]
    process = start(on_ray, tmp_path)
    deadline = time.monotonic() + SECONDS
    while count_notes(parts) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    sent = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert time.monotonic() - sent < 10
    done = count_notes(parts)
    code, errors = run(on_ray, tmp_path)
    assert code == 3 and f"{NUM_IMAGES} images labelled" not in errors, errors
    assert done >= 1 and (parts / "_SUCCESS").exists()
