"""SAM's image encoder as teacher: read from SAM's own files, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.model.official_files import check_weights
from ovsam_cli.model.sam_encoder import PATCH_SIZE, SamEncoder
from ovsam_cli.model.unpickling import Messages, compute_sha256, read_tensors

Precision = Literal["float32", "bfloat16"]
ENCODER_PREFIX = "image_encoder."
# (size of a token, blocks) of the published encoders.
PUBLISHED_SIZES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
PUBLISHED_FILES = "sam_vit_h_4b8939.pth, sam_vit_l_0b3195.pth or sam_vit_b_01ec64.pth"


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A frozen image encoder of SAM.

    Attributes:
        encoder: in evaluation mode, without gradients.
        name: `vit_b`, `vit_l`, `vit_h`, or its sizes.
        weights_sha256: of its file.
    """

    encoder: SamEncoder
    name: str
    weights_sha256: str

    @property
    def model_size(self) -> int:
        """Side of the square frame that it sees, in pixels."""
        return self.encoder.pos_embed.shape[1] * PATCH_SIZE

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(D, h, w) of one image's features."""
        _, height, width, _ = self.encoder.pos_embed.shape
        out_dim = next(self.encoder.neck.parameters()).shape[0]
        return out_dim, height, width


def load_teacher(
    path: Path, expected_name: str | None = None, *, on_message: Messages = None
) -> Teacher:
    """Read the image encoder of a SAM checkpoint; its sizes follow from its tensors.

    Args:
        path: an official SAM file, or a safetensors file with the same keys.
        expected_name: refuse another size than this.
        on_message: told which objects of the file were ignored.

    Raises:
        CheckpointError: unreadable, or no SAM encoder in it.
        InputError: an encoder of another size than expected.
    """
    named = read_tensors(path, on_message)
    weights = {
        key.removeprefix(ENCODER_PREFIX): tensor.float()
        for key, tensor in named.items()
        if key.startswith(ENCODER_PREFIX)
    }
    if "pos_embed" not in weights or "patch_embed.proj.weight" not in weights:
        raise CheckpointError(
            f"{path}: no image encoder of SAM in it (keys {ENCODER_PREFIX}*); "
            f"give {PUBLISHED_FILES}"
        )
    with torch.device("meta"):
        encoder, name = _build_like(weights, path)
    if expected_name is not None and name != expected_name:
        raise InputError(f"{path} holds {name}, --teacher says {expected_name}; change one of them")
    wanted = encoder.state_dict()
    check_weights(weights, wanted, str(path))
    encoder.load_state_dict({key: weights[key] for key in wanted}, assign=True)
    encoder.requires_grad_(False).eval()
    return Teacher(encoder, name, compute_sha256(path))


def read_teacher_positions(path: Path) -> Tensor:
    """The (1, h, w, C) position table of a SAM checkpoint, without building its encoder.

    Raises:
        CheckpointError: unreadable, or no SAM encoder in it.
    """
    positions = read_tensors(path).get(f"{ENCODER_PREFIX}pos_embed")
    if positions is None:
        raise CheckpointError(f"{path}: no {ENCODER_PREFIX}pos_embed in it; give {PUBLISHED_FILES}")
    return positions.float()


def _build_like(weights: Mapping[str, Tensor], path: Path) -> tuple[SamEncoder, str]:
    """An encoder of the sizes that the tensors have, and its name."""
    _, grid_size, _, embed_dim = weights["pos_embed"].shape
    depth = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    try:
        tables = [weights[f"blocks.{index}.attn.rel_pos_h"].shape for index in range(depth)]
        out_dim = weights["neck.0.weight"].shape[0]
        head_dim = tables[0][1]
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"{path}: part of SAM's image encoder is missing ({error}); download it again"
        ) from error
    window_lengths = {length for length, _ in tables if length != 2 * grid_size - 1}
    encoder = SamEncoder(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=embed_dim // head_dim,
        global_blocks=[i for i, (length, _) in enumerate(tables) if length == 2 * grid_size - 1],
        model_size=grid_size * PATCH_SIZE,
        window_size=(max(window_lengths) + 1) // 2 if window_lengths else grid_size,
        out_dim=out_dim,
    )
    return encoder, PUBLISHED_SIZES.get((embed_dim, depth), f"vit of {depth} x {embed_dim}")


def encode_with_teacher(encoder: SamEncoder, pixels: Tensor, precision: Precision) -> Tensor:
    """(I, 3, S, S) normalized and padded -> (I, D, h, w) float32 features, without gradients."""
    with (
        torch.no_grad(),
        torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        features: Tensor = encoder(pixels)
    return features.float()
