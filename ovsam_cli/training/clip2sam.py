"""The CLIP2SAM stage: losses of masks, names and predicted IoU on a frozen trunk (spec 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import compute_class_logits
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.parts import MaskField
from ovsam_cli.training.batches import LossModule
from ovsam_cli.training.instance_batches import InstanceBatch
from ovsam_cli.training.losses import (
    choose_masks,
    choose_uncertain_points,
    classification_loss,
    count_candidates,
    dice_loss,
    estimate_ious,
    iou_loss,
    mask_loss,
    sample_candidates,
    sample_true_masks,
    weigh_candidates,
    weigh_masks,
)


@dataclass(frozen=True, slots=True)
class MapNoise:
    """Faults of trunk maps, as strong as it comes, anew for every map and view.

    Photographs differ from scenes in every fine detail; a model that has seen clean maps only
    trusts them too much and forgets what the prompt itself says.

    Attributes:
        noise: in standard deviations of a channel.
        dropout: greatest share of channels that are dropped.
        gain: deviation of the channels' factors.
    """

    noise: float = 0.9
    dropout: float = 0.35
    gain: float = 0.3


@dataclass(frozen=True, slots=True)
class Clip2SamOptions:
    """What is trained, and on which points.

    Attributes:
        trained: parts of the model by attribute path, such as `mask_decoder` or `backbone.layer4`.
        num_points: points a mask that its losses are taken at.
        near_share: of the candidates that lie around the object's box; 0 in the published rule.
        map_noise: of the trunk maps that masks are made from, or None.
        single_share, other_share: how much masks of a lone point learn that are not its best.
    """

    trained: tuple[str, ...] = ("fpn_neck", "mask_decoder")
    num_points: int = 12544
    near_share: float = 0.0
    map_noise: MapNoise | None = None
    single_share: float = 0.0
    other_share: float = 0.0


class TrainedParts(nn.Module):
    """Some parts of a model under the keys they have there.

    Args:
        model: all its parameters are frozen, then those of the parts are not.
        paths: of the parts, such as `neck` or `backbone.layer4`.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        super().__init__()
        model.requires_grad_(False)
        for path in paths:
            part = model.get_submodule(path).requires_grad_(True)
            *parents, name = path.split(".")
            holder: nn.Module = self
            for parent in parents:
                if parent not in holder._modules:
                    holder.add_module(parent, nn.Module())
                holder = holder.get_submodule(parent)
            holder.add_module(name, part)


class Clip2SamLosses(LossModule[InstanceBatch]):
    """Masks, names and predicted IoU of prompted objects.

    Args:
        model: everything but the trained parts is frozen and in evaluation mode.
        text_embeddings: (K, S, text_dim) float, L2-normalized.
        options: what is trained and how.
    """

    text_embeddings: Tensor

    def __init__(
        self, model: OVSAM, text_embeddings: Tensor, options: Clip2SamOptions | None = None
    ) -> None:
        super().__init__()
        self.options = options or Clip2SamOptions()
        self.model = model.eval()
        self.parts = TrainedParts(model, self.options.trained)
        self.register_buffer("text_embeddings", text_embeddings, persistent=False)

    def trained_parts(self) -> nn.Module:
        """The parts of the model that are trained, under their own keys."""
        return self.parts

    def forward(self, batch: InstanceBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """`mask`, `dice`, `class` and, for a model with the head, `iou`."""
        trunk_maps = self.model.backbone(batch.pixels)
        disturbed = disturb_maps(trunk_maps, self.options.map_noise, generator)
        losses = self._mask_losses(self._decode(disturbed, batch), batch, generator)
        losses["class"] = self._class_loss(self.model.fpn_neck(trunk_maps), batch)
        return losses

    def _decode(self, trunk_maps: Sequence[Tensor], batch: InstanceBatch) -> MaskField:
        model = self.model
        return model.mask_decoder.decode_field(
            model.neck(trunk_maps),
            model.pe.image_pe(),
            model.encode_prompts(batch.prompts),
            None if model.fine_neck is None else model.fine_neck(trunk_maps),
        )

    def _class_loss(self, fpn_features: Sequence[Tensor], batch: InstanceBatch) -> Tensor:
        """Training names the true boxes, not those of predicted masks (spec 5.1)."""
        boxes, labels, image_index = batch.boxes_xyxy, batch.labels, batch.prompts.image_index
        if batch.regions is not None:
            regions = batch.regions
            boxes, labels, image_index = regions.boxes_xyxy, regions.labels, regions.image_index
        head = self.model.mask_decoder.roi_conv
        embeddings = head.embed_regions(fpn_features, boxes, image_index)
        logit_scale = self.model.config.logit_scale
        logits = compute_class_logits(embeddings, self.text_embeddings, logit_scale)
        return classification_loss(logits, labels)

    def _mask_losses(
        self, field: MaskField, batch: InstanceBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each prompt's mask; of a lone point's masks the best one, as in SAM."""
        options = self.options
        boxes = batch.boxes_xyxy / batch.masks.shape[-1]
        count = count_candidates(options.num_points)
        candidates = sample_candidates(boxes, count, generator, near_share=options.near_share)
        with torch.no_grad():
            seen = field.sample(candidates).float()  # (B, M, C)
            truth = sample_true_masks(batch.masks, batch.mask_index, candidates)
            shares = weigh_candidates(boxes, candidates, near_share=options.near_share)
            ious = estimate_ious(seen, truth, shares)  # (B, M)
        is_lone = batch.prompts.is_lone_point & (ious.shape[1] > 1)
        guide = choose_masks(seen, ious, is_lone)
        points = choose_uncertain_points(guide, candidates, options.num_points)
        point_logits = field.sample(points).float()  # (B, M, N)
        targets = sample_true_masks(batch.masks, batch.mask_index, points)[:, None]
        targets = targets.expand_as(point_logits)
        mask, dice = mask_loss(point_logits, targets), dice_loss(point_logits, targets)
        shares = weigh_masks(
            mask + dice,
            is_lone,
            single_share=options.single_share,
            other_share=options.other_share,
        )  # (B, M)
        losses = {"mask": (shares * mask).sum(dim=1).mean()}
        losses["dice"] = (shares * dice).sum(dim=1).mean()
        if field.iou_predictions is not None:
            is_single = torch.arange(ious.shape[1], device=ious.device) == 0
            used = is_single != is_lone[:, None]  # (B, M)
            losses["iou"] = iou_loss(field.iou_predictions[used], ious[used])
        return losses


def disturb_maps(
    trunk_maps: Sequence[Tensor], options: MapNoise | None, generator: torch.Generator
) -> Sequence[Tensor]:
    """Noise and dropped channels of (I, C_l, h_l, w_l) maps; the maps themselves for None."""
    if options is None:
        return trunk_maps
    disturbed = []
    for maps in trunk_maps:
        num, device = len(maps), maps.device
        shape = (num, maps.shape[1], 1, 1)
        spread = maps.std(dim=(0, 2, 3), keepdim=True)
        strength = torch.rand(num, 1, 1, 1, generator=generator, device=device)
        noise = torch.randn(maps.shape, generator=generator, device=device)
        share = options.dropout * torch.rand(num, 1, 1, 1, generator=generator, device=device)
        is_kept = torch.rand(shape, generator=generator, device=device) >= share
        gain = 1 + options.gain * strength * torch.randn(shape, generator=generator, device=device)
        noisy = maps * gain + options.noise * strength**2 * spread * noise
        disturbed.append(noisy * is_kept / (1 - share))
    return tuple(disturbed)
