"""Training of `tiny`'s masks: neck, prompt encoder and mask decoder, on a bank of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import InputError
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.tiny import ELLIPSE_WEIGHTS, TinyMaskDecoder
from ovsam_cli.training.bank import find_views, read_view
from ovsam_cli.training.old_losses import (
    OVERSAMPLING,
    dice_loss,
    mask_loss,
    sample_candidates,
    sample_maps,
    sample_uncertain_points,
)
from ovsam_cli.training.old_prompt_sampling import TrainingBatch, build_batch

MAX_FEATURE_NOISE = 0.9  # in standard deviations of a channel
MAX_CHANNEL_DROPOUT = 0.35
# Added to the weights of the ellipse in the box and of what lies outside, in the end.
FINAL_ELLIPSE_SHARE = 0.6
NUM_POINTS = 1024  # a mask; the published model takes 12,544 of a frame of twice the side


class MaskParts(nn.Module):
    """The trained parts of a model, under the names they have there."""

    def __init__(self, model: OVSAM) -> None:
        super().__init__()
        self.neck = model.neck
        self.fine_neck = model.fine_neck
        self.pe = model.pe
        self.mask_decoder = model.mask_decoder
        # The recognition head is trained on its own; masks do not depend on it.
        self.mask_decoder.roi_conv.requires_grad_(False)

    def forward(self, batch: TrainingBatch) -> Tensor:
        """(B, 1, 4h, 4w) mask logits of a batch."""
        assert self.fine_neck is not None  # `tiny` has one
        decoded: DecodedMasks = self.mask_decoder(
            self.neck(batch.trunk_maps),
            self.pe.image_pe(),
            self.pe(batch.prompts),
            self.fine_neck(batch.trunk_maps),
        )
        return decoded.mask_logits


def compute_mask_losses(
    parts: MaskParts, batch: TrainingBatch, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mask and dice loss of one batch, at points chosen as PointRend does."""
    mask_logits = parts(batch)  # (B, 1, 4h, 4w)
    size = batch.masks.shape[-1]
    count = OVERSAMPLING * NUM_POINTS
    candidates = sample_candidates(batch.boxes_xyxy / size, count, generator)
    points = sample_uncertain_points(mask_logits, NUM_POINTS, generator, candidates)
    point_logits = sample_maps(mask_logits, points)
    cells = (points * size).long().clamp(0, size - 1)  # (B, N, 2)
    targets = batch.masks[batch.mask_index[:, None], cells[..., 1], cells[..., 0]].float()
    return {"mask": mask_loss(point_logits, targets), "dice": dice_loss(point_logits, targets)}


def disturb_maps(trunk_maps: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Noise and dropped channels, as strong as it comes, anew for every map and view.

    Photographs differ from scenes in every fine detail; a model that has seen clean maps only
    trusts them too much and forgets what the prompt itself says.

    Args:
        trunk_maps: (I, C_l, h_l, w_l) maps.
        generator: of the randomness.
    """
    disturbed = []
    for maps in trunk_maps:
        shape = (len(maps), maps.shape[1], 1, 1)
        spread = maps.std(dim=(0, 2, 3), keepdim=True)
        strength = torch.rand(len(maps), 1, 1, 1, generator=generator)
        noise = torch.randn(maps.shape, generator=generator)
        share = MAX_CHANNEL_DROPOUT * torch.rand(len(maps), 1, 1, 1, generator=generator)
        is_kept = torch.rand(shape, generator=generator) >= share
        gain = 1 + 0.3 * strength * torch.randn(shape, generator=generator)
        noisy = maps * gain + MAX_FEATURE_NOISE * strength**2 * spread * noise
        disturbed.append(noisy * is_kept / (1 - share))
    return tuple(disturbed)


def build_mask_step(
    parts: MaskParts, bank: Path, *, views_per_step: int, prompts_per_view: int
) -> Callable[[np.random.Generator, torch.Generator], Mapping[str, Tensor]]:
    """The loop's step: a batch of the views that the bank holds at that moment.

    Raises:
        InputError: the bank is empty.
    """
    paths = find_views(bank)
    if not paths:
        raise InputError(f"{bank}: no views in the bank; fill it from scenes first")
    steps = 0

    def compute_losses(
        rng: np.random.Generator, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        nonlocal paths, steps
        if steps % 50 == 49:
            paths = find_views(bank)
        steps += 1
        chosen = rng.choice(len(paths), min(views_per_step, len(paths)), replace=False)
        views = [read_view(paths[row]) for row in chosen]
        batch = build_batch(views, prompts_per_view, rng)
        batch = replace(batch, trunk_maps=disturb_maps(batch.trunk_maps, generator))
        return compute_mask_losses(parts, batch, generator)

    return compute_losses


def finish_masks(parts: MaskParts) -> None:
    """Give the box itself more say than training did.

    Scenes are easier than photographs: there the learned maps are less sure than they think.
    The share was chosen by validation photographs that are no training data.
    """
    assert isinstance(parts.mask_decoder, TinyMaskDecoder)
    parts.mask_decoder.add_prompt_weights([FINAL_ELLIPSE_SHARE * one for one in ELLIPSE_WEIGHTS])
