"""Fixtures of more than one test module."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import photo
from PIL import Image


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to leave this machine fails at once."""

    def refuse(self: socket.socket, address: object) -> None:
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
