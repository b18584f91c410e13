"""Prompts of the original frame -> tensors of the model frame, at this one place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.masks import decode_mask
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptLayout
from ovsam_cli.structures import ImageGeometry, Prompts, Rle

# A binary mask becomes logits of this size: sure, as the logits of a first pass would be.
MASK_PROMPT_LOGIT = 10.0


def to_model_prompts(
    prompts: Prompts, geometries: Sequence[ImageGeometry], *, device: torch.device
) -> ModelPrompts:
    """Scale prompts to the input frame of their image and put them on the device.

    Args:
        prompts: B prompts, original frame.
        geometries: of the images that `prompts.image_index` counts.
        device: where the tensors go.

    Returns:
        Tensors in the padded model frame; mask prompts as logits of a quarter of its size.
    """
    scales = np.asarray([geometry.scale_xy for geometry in geometries], np.float32)
    scale = scales[prompts.image_index]  # (B, 2)
    boxes_xyxy = np.nan_to_num(prompts.boxes_xyxy) * np.tile(scale, (1, 2))
    point_coords = prompts.point_coords * scale[:, None]
    has_mask = [mask is not None for mask in prompts.masks]
    # Without waiting: what is not pinned is copied away from here before `to` returns.
    return ModelPrompts(
        image_index=torch.from_numpy(prompts.image_index),
        point_coords=torch.from_numpy(point_coords.astype(np.float32)),
        point_labels=torch.from_numpy(prompts.point_labels),
        model_boxes_xyxy=torch.from_numpy(boxes_xyxy.astype(np.float32)),
        has_box=torch.from_numpy(prompts.has_box),
        prompt_mask_logits=_mask_logits(prompts, geometries) if any(has_mask) else None,
        has_mask=torch.tensor(has_mask) if any(has_mask) else None,
        layout=_find_layout(prompts),
    ).to(device)


def _find_layout(prompts: Prompts) -> PromptLayout:
    if (prompts.point_labels < 0).any():
        return "mixed"
    if prompts.has_box.all():
        return "boxed"
    return "mixed" if prompts.has_box.any() else "unboxed"


def _mask_logits(prompts: Prompts, geometries: Sequence[ImageGeometry]) -> Tensor:
    """(B, 1, S/4, S/4) float: mask prompts as logits, padding as background, zero where none."""
    side = geometries[0].model_size // 4
    logits = torch.zeros(len(prompts), 1, side, side)
    for row, mask in enumerate(prompts.masks):
        if mask is not None:
            logits[row, 0] = _one_mask_logits(mask, geometries[int(prompts.image_index[row])])
    return logits


def _one_mask_logits(mask: Rle, geometry: ImageGeometry) -> Tensor:
    """(S/4, S/4) float: the share of mask pixels in each cell, mapped to +-MASK_PROMPT_LOGIT."""
    side = geometry.model_size // 4
    height, width = (max(1, round(size / 4)) for size in geometry.input_hw)
    share = torch.from_numpy(decode_mask(mask)).float()[None, None]
    share = F.interpolate(share, (height, width), mode="bilinear", antialias=True)[0, 0]
    logits = torch.full((side, side), -MASK_PROMPT_LOGIT)
    logits[:height, :width] = MASK_PROMPT_LOGIT * (2 * share - 1)
    return logits
