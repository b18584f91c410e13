"""Row 2 of the fault table: no room left, on a real file system of 8 MB."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Case

SECONDS = 30.0  # with a loaded machine's start; a run that hangs takes for ever


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(disk: Path, *, left: int) -> Path:
    """Take all room but about so many bytes."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - left)))
    return filler


@pytest.mark.parametrize(
    ("left", "name"), [(8 << 10, "images.jsonl"), (20 << 10, "part-00000.jsonl")]
)
def test_no_room_for_the_journal(
    case: Case, whole: bytes, small_disk: Path, left: int, name: str
) -> None:
    """Exit 1 within seconds, naming the path and the free space; with room again it goes on."""
    out = small_disk / "out"
    out.mkdir()
    filler = _fill(small_disk, left=left)
    ended = case.run(out, timeout=SECONDS)
    assert ended.code == 1, ended.err
    assert f"{name}: cannot be written: No space left on device" in ended.err
    assert "MB free); mend this and run the same command again" in ended.err
    assert not (out / "annotations.json").exists()
    filler.unlink()
    assert case.run(out).code == 0
    assert (out / "annotations.json").read_bytes() == whole


def test_no_room_for_the_result(case: Case, whole: bytes, small_disk: Path) -> None:
    """The older file stays as it was; with room again nothing is labelled anew."""
    out = small_disk / "out"
    assert case.run(out).code == 0
    (out / "annotations.json").write_bytes(b"older")
    filler = _fill(small_disk, left=8 << 10)
    ended = case.run(out, timeout=SECONDS)
    assert ended.code == 1, ended.err
    assert "annotations.json: cannot be written: No space left on device" in ended.err
    assert (out / "annotations.json").read_bytes() == b"older"
    assert not (out / ".annotations.json.tmp").exists()
    filler.unlink()
    ended = case.run(out)
    assert (ended.code, "0 images labelled" in ended.err) == (0, True)
    assert (out / "annotations.json").read_bytes() == whole


def test_no_room_for_previews(case: Case, whole: bytes, small_disk: Path) -> None:
    """Previews are told of like any other file."""
    out = small_disk / "out"
    out.mkdir()
    filler = _fill(small_disk, left=100 << 10)
    ended = case.run(out, "--previews", "all", timeout=SECONDS)
    assert ended.code == 1, ended.err
    assert "cannot be written: No space left on device" in ended.err
    filler.unlink()
    shutil.rmtree(out / "previews")
    assert case.run(out).code == 0
    assert (out / "annotations.json").read_bytes() == whole


def test_no_room_for_the_lock(case: Case, small_disk: Path) -> None:
    """Found before weights are loaded."""
    out = small_disk / "out"
    (out / ".ovsam").mkdir(parents=True)
    _fill(small_disk, left=0)
    args = case.args(out)
    args[args.index("--model") + 1] = case.folder / "prompts.json"  # no weights at all
    ended = case.starter.run(args, timeout=SECONDS)
    assert ended.code == 1, ended.err
    assert "lock.json: cannot be written: No space left on device" in ended.err
