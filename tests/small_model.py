"""A model of random weights, small enough for every test, in a real checkpoint file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ovsam_cli.benchmarking import ready_model
from ovsam_cli.model.checkpoint import build_ovsam, save_weights

SMALL = replace(
    ready_model.SMALL,
    name="small",
    model_size=128,
    grid_size=8,
    text_dim=384,
    text_tower="minilm-l6",
    neck_window=4,
)


def write_small_checkpoint(path: Path) -> Path:
    """Write the small model's weights; its masks have both sides, being random."""
    torch.manual_seed(3)
    model = build_ovsam(SMALL)
    save_weights(model.state_dict(), SMALL, path, license_notice="none")
    return path


def write_iou_checkpoint(path: Path) -> Path:
    """The like with three masks for a lone point, whose IoU it predicts to be about 0.9."""
    torch.manual_seed(3)
    config = replace(SMALL, name="small-iou", iou_head=True, num_point_masks=3)
    model = build_ovsam(config)
    last = model.mask_decoder.mask_decoder.iou_prediction_head.layers[-1]
    torch.nn.init.normal_(last.weight, std=0.01)
    torch.nn.init.constant_(last.bias, 0.9)
    save_weights(model.state_dict(), config, path, license_notice="none")
    return path


def write_photos(folder: Path) -> Path:
    """Write `a.jpg` (60 x 80) and `more/b.png` (90 x 50), height x width."""
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for name, hw in [("a.jpg", (60, 80)), ("more/b.png", (90, 50))]:
        pixels = rng.integers(0, 255, (*hw, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder
