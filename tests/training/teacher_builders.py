"""A teacher small enough for tests, in a file of SAM's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ovsam_cli.model.sam_encoder import SamEncoder


def build_small_encoder(*, model_size: int = 128, out_dim: int = 32, dim: int = 32) -> SamEncoder:
    """Random weights; a window block and a global one."""
    torch.manual_seed(11)
    encoder = SamEncoder(
        embed_dim=dim,
        depth=2,
        num_heads=2,
        global_blocks=(1,),
        model_size=model_size,
        window_size=3,
        out_dim=out_dim,
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def write_sam_file(path: Path, encoder: SamEncoder) -> Path:
    """As Meta's files: the encoder beside parts that the reader leaves out."""
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 4)
    torch.save(state, path)
    return path


def write_images(folder: Path, names: list[str]) -> Path:
    """Noise of 60 x 80 pixels, another for each name."""
    for number, name in enumerate(names):
        rgb = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
    return folder
