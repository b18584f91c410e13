"""SAM's own files as the start of training: its prompt encoder and mask decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import CheckpointError
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.official_files import without_wrapper
from ovsam_cli.model.unpickling import Messages, read_tensors

DECODER_PREFIX = "mask_decoder.mask_decoder."
_SAM_PREFIXES = {"prompt_encoder.": "pe.", "mask_decoder.": DECODER_PREFIX}
# One row a mask, SAM's order: the single mask, then its three for lone points.
_ROWS_BY_MASK = (
    "mask_tokens.weight",
    "iou_prediction_head.layers.2.weight",
    "iou_prediction_head.layers.2.bias",
)


def load_sam_decoder(
    path: Path, config: OVSAMConfig, *, on_message: Messages = None
) -> dict[str, Tensor]:
    """Take what a model shares with SAM out of an official SAM file (spec section 7.2).

    Without `iou_head` that is the single mask's token and hypernetwork (row 0) and no IoU parts;
    with it the IoU token and head too, and with `num_point_masks` as many of the further masks.

    Args:
        path: such as `sam_vit_h_4b8939.pth`; any SAM size, all have the same decoder.
        config: of the model to start.
        on_message: told about ignored objects of the file.

    Returns:
        Canonical key -> float32 tensor of all of `pe.*` and `mask_decoder.mask_decoder.*`.

    Raises:
        CheckpointError: the file cannot be read, is no SAM file, or does not fit the config.
    """
    wanted = _find_wanted(config)
    if not wanted:
        raise CheckpointError(
            f"{path}: the model {config.name!r} has a decoder of its own that cannot start from "
            "SAM's; leave this file out"
        )
    named = without_wrapper(read_tensors(path, on_message))
    if "mask_decoder.iou_token.weight" not in named:
        first = ", ".join(list(named)[:3]) or "none"
        raise CheckpointError(
            f"{path}: no mask decoder of SAM in it (keys: {first}); expected mask_decoder.* and "
            "prompt_encoder.* as in sam_vit_h_4b8939.pth, sam_vit_l_0b3195.pth or "
            "sam_vit_b_01ec64.pth"
        )
    num_masks = 1 + config.num_point_masks
    found = {}
    for key, tensor in named.items():
        name = _rename(key)
        if name is not None:
            rows = tensor[:num_masks] if name.endswith(_ROWS_BY_MASK) else tensor
            found[name] = rows.float().contiguous()
    _check(found, wanted, path)
    return {key: found[key] for key in wanted}


def _find_wanted(config: OVSAMConfig) -> dict[str, Tensor]:
    """The tensors, without values, that a model of this config shares with SAM."""
    with torch.device("meta" if config.trunk == "clip-resnet" else "cpu"):
        state = build_ovsam(config).state_dict()
    if not any(key.startswith(DECODER_PREFIX) for key in state):
        return {}
    return {key: t for key, t in state.items() if key.startswith(tuple(_SAM_PREFIXES.values()))}


def _rename(key: str) -> str | None:
    """SAM's name of a tensor -> canonical."""
    for prefix, canonical in _SAM_PREFIXES.items():
        if key.startswith(prefix):
            return canonical + key.removeprefix(prefix)
    return None


def _check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    for key, like in wanted.items():
        if key not in found:
            raise CheckpointError(f"{path}: {key} is missing among SAM's tensors; damaged file?")
        if found[key].shape != like.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(found[key].shape)}, the model needs "
                f"{tuple(like.shape)}; SAM's decoder fits a model with embed_dim 256, two decoder "
                "layers and at most 3 point masks"
            )
