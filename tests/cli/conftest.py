"""A model of random weights in a real checkpoint file, and photos to label with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ovsam_cli.cli.main import build_app
from ovsam_cli.model.checkpoint import build_ovsam, save_weights
from ovsam_cli.model.ovsam import OVSAMConfig

SMALL = OVSAMConfig(
    name="small",
    model_size=128,
    embed_dim=32,
    grid_size=8,
    decoder_heads=4,
    decoder_mlp_dim=64,
    text_dim=384,
    text_tower="minilm-l6",
    fpn_channels=(32, 64, 128, 256),
    fpn_dim=16,
    head_roi_size=4,
    clip_roi_size=4,
    trained_on=("cat", "dog"),
    trunk_layers=(1, 1, 1, 1),
    trunk_width=8,
    trunk_heads=4,
    trunk_image_size=128,
    neck_dim=32,
    neck_depth=2,
    neck_heads=2,
    neck_window=4,
)
Ovsam = Callable[..., Result]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's file; its masks have both sides, being random."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = build_ovsam(SMALL)
    save_weights(model.state_dict(), SMALL, path, license_notice="none")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, one in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for name, hw in [("a.jpg", (60, 80)), ("more/b.png", (90, 50))]:
        pixels = rng.integers(0, 255, (*hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def ovsam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ovsam:
    """Run `ovsam` with these arguments in this process."""
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(build_app(), [str(argument) for argument in arguments])

    return run
