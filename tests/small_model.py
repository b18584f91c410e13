"""A model of random weights, small enough for every test, in a real checkpoint file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

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
