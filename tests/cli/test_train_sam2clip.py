"""`ovsam train cache-teacher` and `ovsam train sam2clip`, from images to a neck."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_model import write_small_checkpoint
from typer.testing import Result

from ovsam_cli.model.official_files import read_official
from ovsam_cli.model.sam_encoder import SamEncoder
from ovsam_cli.training.teacher_cache import read_shard_index


@pytest.fixture
def sam_file(tmp_path: Path) -> Path:
    """SAM's encoder in small, in its own layout."""
    torch.manual_seed(0)
    encoder = SamEncoder(
        embed_dim=32, depth=1, num_heads=2, global_blocks=(0,), model_size=128, out_dim=32
    )
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


def test_from_images_to_a_neck(
    ovsam: Callable[..., Result], photos: Path, sam_file: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "run"
    cached = ovsam("train", "cache-teacher", photos, cache, "--checkpoint", sam_file)
    assert cached.exit_code == 0, cached.output
    assert "2 images, 0 of them cached; the others need 0.0 MiB" in cached.output
    again = ovsam("train", "cache-teacher", photos, cache, "--checkpoint", sam_file)
    assert "2 images, 2 of them cached" in again.output
    trunk = write_small_checkpoint(tmp_path / "trunk.safetensors")
    command = ["train", "sam2clip", photos, out, "--trunk", trunk, "--teacher-cache", cache]
    command += ["--max-steps", "2", "--accumulate", "1", "--workers", "0", "--device", "cpu"]
    trained = ovsam(*map(str, command))
    assert trained.exit_code == 0, trained.output
    assert "2 images to learn from, 0 held out; 2 steps" in trained.output
    assert "neck.pos_embed" in read_official([out / "sam2clip.safetensors"]).weights


def test_exit_codes(
    ovsam: Callable[..., Result],
    photos: Path,
    sam_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2 wrong input, 4 no weights, 3 an unreadable image, 1 a disk that is too small."""
    command = ["train", "cache-teacher", photos, tmp_path / "cache", "--checkpoint"]
    wrong = ovsam(*command, sam_file, "--teacher", "vit_h")
    assert (wrong.exit_code, "--teacher says vit_h" in wrong.output) == (2, True)
    missing = ovsam(*command, tmp_path / "none.pth")
    assert (missing.exit_code, "no such weights file" in missing.output) == (4, True)
    (photos / "c.jpg").write_bytes(b"torn")
    partly = ovsam(*command, sam_file)
    assert (partly.exit_code, "1 images failed" in partly.output) == (3, True)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1}))
    full = ovsam(*command[:3], tmp_path / "other", "--checkpoint", sam_file)
    assert (full.exit_code, "give a folder on a larger disk" in full.output) == (1, True)
    layout = ovsam("train", "sam2clip", photos, tmp_path / "run", "--trunk", sam_file)
    assert layout.exit_code in (2, 4)


@pytest.mark.slow
def test_a_killed_cache_goes_on(
    ovsam: Callable[..., Result], sam_file: Path, tmp_path: Path
) -> None:
    """SIGKILL after the first file; the same command then computes only what is missing."""
    folder, cache = tmp_path / "many", tmp_path / "cache"
    folder.mkdir()
    for number in range(400):
        Image.new("RGB", (80, 60), (number % 256, 0, 0)).save(folder / f"{number}.png")
    arguments = ["train", "cache-teacher", folder, cache, "--checkpoint", sam_file]
    arguments += ["--shard-size", "5", "--device", "cpu"]
    child = subprocess.Popen([sys.executable, "-m", "ovsam_cli", *map(str, arguments)])
    while child.poll() is None and not list(cache.glob("features-*")):
        time.sleep(0.01)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    num_cached = len(read_shard_index(cache).keys)
    assert 0 < num_cached < 400 and num_cached % 5 == 0
    again = ovsam(*arguments)
    assert again.exit_code == 0 and f"400 images, {num_cached} of them cached" in again.output
    assert len(read_shard_index(cache).keys) == 400
    assert not list(cache.glob(".*"))


@pytest.mark.slow
def test_two_ranks_of_torchrun(photos: Path, sam_file: Path, tmp_path: Path) -> None:
    """Both commands; only the first rank speaks and writes."""
    trunk = write_small_checkpoint(tmp_path / "trunk.safetensors")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--module"]
    torchrun += ["--standalone", "ovsam_cli", "train"]
    cache, out = tmp_path / "cache", tmp_path / "run"
    caching = [*torchrun, "cache-teacher", photos, cache, "--checkpoint", sam_file]
    training = [*torchrun, "sam2clip", photos, out, "--trunk", trunk, "--teacher-cache", cache]
    training += ["--max-steps", "2", "--batch", "1", "--accumulate", "1", "--workers", "0"]
    for command in (caching, training):
        arguments = [*map(str, command), "--device", "cpu"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 images to learn from") == 1
    assert len(read_shard_index(cache).keys) == 2
    assert "neck.pos_embed" in read_official([out / "sam2clip.safetensors"]).weights
