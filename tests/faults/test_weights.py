"""Row 4 of the fault table: damaged and hostile weights, through the command."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from cases import Case
from hostile_pickles import TRAP, TRAP_MODULE, make_hostile_files

from ovsam_cli.model.known_models import TINY_PATH

# Leaves with a code of its own as soon as an image is opened.
NO_IMAGE = """
import os
from ovsam_cli.labelling import planner
planner.read_image = lambda *args, **kwargs: os._exit(99)
"""
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
NAMES = sorted(make_hostile_files(Path("canary")))


def test_the_attacks_are_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain reader of such a file makes the canary: a test of the tests."""
    canary = tmp_path / "canary"
    (tmp_path / f"{TRAP_MODULE}.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CANARY", str(canary))
    harmless = 0
    for name, content in make_hostile_files(canary).items():
        path = tmp_path / name
        path.write_bytes(content)
        try:
            torch.load(path, weights_only=False)
        except Exception:
            try:
                pickle.loads(content)
            except Exception:
                pass
        harmless += not canary.exists()
        canary.unlink(missing_ok=True)
    assert len(NAMES) - harmless >= 10


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles(case: Case, tmp_path: Path, name: str, suffix: str) -> None:
    """No code of a weights file runs; exit code 4 names the file, before any image is read."""
    canary = tmp_path / "canary"
    (tmp_path / f"{TRAP_MODULE}.py").write_text(TRAP)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(make_hostile_files(canary)[name])
    args = case.args(tmp_path / "out", "--model", path)
    setup = f"{NO_IMAGE}import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    ended = case.starter.run(args, setup=setup, env={"CANARY": str(canary)})
    assert (ended.code, "Traceback" in ended.err) == (4, False), ended.err
    assert path.name in ended.err
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "the file is empty"),
        ("page", "a web page"),
        ("pointer", "git lfs pull"),
        ("noise", "truncated, corrupt or not weights"),
        ("truncated", "truncated, corrupt or not weights"),
        ("header", "truncated, corrupt or not weights"),
    ],
)
def test_files_that_are_no_weights(
    case: Case, tmp_path: Path, kind: str, message: str, suffix: str
) -> None:
    """Exit code 4 with path, size, what it seems to be and the remedy, before any image is read."""
    torch.save({"state_dict": {"neck.weight": torch.ones(1000)}}, tmp_path / "good")
    good = (case.checkpoint if suffix == ".safetensors" else tmp_path / "good").read_bytes()
    content = {
        "empty": b"",
        "page": b"<!DOCTYPE html><html><body>404</body></html>",
        "pointer": LFS_POINTER,
        "noise": os.urandom(3000),
        "truncated": good[: len(good) // 2],
        "header": good[:100],
    }[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    ended = case.run(tmp_path / "out", "--model", path, setup=NO_IMAGE)
    assert (ended.code, "Traceback" in ended.err) == (4, False), ended.err
    assert f"{path} ({len(content)} bytes): " in ended.err
    assert message in ended.err
    assert "download it again" in ended.err
    if (kind, suffix) == ("truncated", ".safetensors"):
        assert f"its header promises {len(good)} bytes" in ended.err
    assert not (tmp_path / "out" / "annotations.json").exists()


def _flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def test_a_flipped_bit_in_a_converted_model(case: Case, tmp_path: Path) -> None:
    """Readers do not see it; the checksum that `models convert` leaves beside the file does."""
    path = tmp_path / "model.safetensors"
    ended = case.starter.run(["models", "convert", case.checkpoint, path])
    assert ended.code == 0, ended.err
    assert case.run(tmp_path / "good", "--model", path).code == 0
    _flip_a_bit(path)
    ended = case.run(tmp_path / "bad", "--model", path, setup=NO_IMAGE)
    assert ended.code == 4
    expected = (tmp_path / "model.safetensors.sha256").read_text().split()[0]
    assert f"{path} ({path.stat().st_size} bytes): its sha256 is " in ended.err
    assert f"expected {expected} (by model.safetensors.sha256 beside it)" in ended.err
    assert "download or make it again" in ended.err


def test_a_flipped_bit_in_the_bundled_model(case: Case, tmp_path: Path) -> None:
    """Its checksum comes with it."""
    for path in (TINY_PATH, TINY_PATH.with_name(f"{TINY_PATH.name}.sha256")):
        shutil.copy(path, tmp_path)
    _flip_a_bit(tmp_path / TINY_PATH.name)
    ended = case.run(tmp_path / "bad", "--model", tmp_path / TINY_PATH.name, setup=NO_IMAGE)
    assert (ended.code, "expected" in ended.err) == (4, True), ended.err


def test_a_published_name_with_another_content(case: Case, tmp_path: Path) -> None:
    """Files that other projects host are known by name and checksum."""
    torch.save({"neck.weight": torch.ones(3)}, tmp_path / "sam_vit_h_4b8939.pth")
    ended = case.run(tmp_path / "out", "--model", tmp_path, setup=NO_IMAGE)
    assert (ended.code, "(as published)" in ended.err) == (4, True), ended.err


def test_hostile_class_embeddings(case: Case, tmp_path: Path) -> None:
    """Text embeddings may come as a pickle too."""
    canary = tmp_path / "canary"
    path = tmp_path / "embeddings.pth"
    path.write_bytes(make_hostile_files(canary)["system"])
    ended = case.run(tmp_path / "out", "--text-embeddings", path, setup=NO_IMAGE)
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert not canary.exists()
