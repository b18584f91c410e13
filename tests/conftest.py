"""Fixtures of more than one test module."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import photo
from PIL import Image
from small_model import write_photos, write_small_checkpoint
from typer.testing import CliRunner, Result

from ovsam_cli.cli.main import build_app


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to leave this machine fails at once."""

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == getattr(socket, "AF_UNIX", None):  # workers of a loader, on this machine
            return connect(self, address)
        raise OSError(f"tests have no network; tried {address!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Code that draws without a generator of its own draws the same numbers in every test."""
    np.random.seed(0)


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[..., Path]:
    """`image_file("x/a.png", array)` writes an image and gives its path."""

    def write(name: str = "image.png", pixels: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo() if pixels is None else pixels).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small model with random weights."""
    return write_small_checkpoint(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with `a.jpg` (60 x 80) and `more/b.png` (90 x 50)."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def ovsam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `ovsam` with these arguments in this process, with a cache of its own."""
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])

    return run
