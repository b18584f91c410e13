"""The CLIP2SAM stage: losses of masks, names and predicted IoU on a frozen trunk (spec 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import compute_class_logits
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.training.batches import LossModule
from ovsam_cli.training.instance_batches import InstanceBatch
from ovsam_cli.training.losses import (
    choose_uncertain_points,
    classification_loss,
    compute_cell_ious,
    count_candidates,
    dice_loss,
    iou_loss,
    mask_loss,
    sample_candidates,
    sample_maps,
    sample_true_masks,
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
    """

    trained: tuple[str, ...] = ("fpn_neck", "mask_decoder")
    num_points: int = 12544
    near_share: float = 0.0
    map_noise: MapNoise | None = None


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
        features = self._encode(batch, generator)
        decoded = self.model.mask_decoder.decode_all(
            features.image_embeddings,
            self.model.pe.image_pe(),
            self.model.encode_prompts(batch.prompts),
            features.fine_features,
        )
        losses = self._mask_losses(decoded, batch, generator)
        losses["class"] = self._class_loss(features, batch)
        return losses

    def _encode(self, batch: InstanceBatch, generator: torch.Generator) -> ImageFeatures:
        trunk_maps = self.model.backbone(batch.pixels)
        clean = trunk_maps
        if self.options.map_noise is not None:
            trunk_maps = disturb_maps(trunk_maps, self.options.map_noise, generator)
        fine_neck = self.model.fine_neck
        return ImageFeatures(
            image_embeddings=self.model.neck(trunk_maps),
            fpn_features=self.model.fpn_neck(clean),
            clip_features=clean[-1],
            input_hw=batch.input_hw,
            fine_features=None if fine_neck is None else fine_neck(trunk_maps),
        )

    def _class_loss(self, features: ImageFeatures, batch: InstanceBatch) -> Tensor:
        """Training names the true boxes, not those of predicted masks (spec 5.1)."""
        boxes, labels, image_index = batch.boxes_xyxy, batch.labels, batch.prompts.image_index
        if batch.regions is not None:
            regions = batch.regions
            boxes, labels, image_index = regions.boxes_xyxy, regions.labels, regions.image_index
        head = self.model.mask_decoder.roi_conv
        embeddings = head.embed_regions(features.fpn_features, boxes, image_index)
        logit_scale = self.model.config.logit_scale
        logits = compute_class_logits(embeddings, self.text_embeddings, logit_scale)
        return classification_loss(logits, labels)

    def _mask_losses(
        self, decoded: DecodedMasks, batch: InstanceBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Each prompt's mask; of a lone point's masks the best one, as in SAM."""
        is_lone = batch.prompts.is_lone_point
        num_masks = decoded.mask_logits.shape[1]
        if num_masks == 1:
            is_lone = torch.zeros_like(is_lone)
        single, lone = (~is_lone).nonzero().flatten(), is_lone.nonzero().flatten()
        columns = torch.arange(1, num_masks, device=single.device)
        # One row for each mask that has a loss: prompts' single masks, then lone points' own.
        prompts = torch.cat([single, lone.repeat_interleave(len(columns))])
        chosen = torch.cat([torch.zeros_like(single), columns.repeat(len(lone))])
        logits = decoded.mask_logits[prompts, chosen].float()[:, None]  # (R, 1, 4h, 4w)
        mask, dice = self._point_losses(logits, batch, prompts, generator)
        found = {"mask": mask, "dice": dice}
        if len(lone) and len(columns) > 1:
            both = (mask + dice)[len(single) :].reshape(len(lone), -1)
            best = (
                len(single)
                + both.argmin(dim=1)
                + len(columns) * torch.arange(len(lone), device=both.device)
            )
            rows = torch.cat([torch.arange(len(single), device=both.device), best])
            found = {name: losses[rows] for name, losses in found.items()}
        losses = {name: one.mean() for name, one in found.items()}
        if decoded.iou_predictions is not None:
            ious = compute_cell_ious(logits, batch.masks, batch.mask_index[prompts])[:, 0]
            losses["iou"] = iou_loss(decoded.iou_predictions[prompts, chosen], ious)
        return losses

    def _point_losses(
        self, logits: Tensor, batch: InstanceBatch, prompts: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(R,) mask and (R,) dice losses of (R, 1, 4h, 4w) logits of prompts (R,)."""
        options = self.options
        candidates = sample_candidates(
            batch.boxes_xyxy[prompts] / batch.masks.shape[-1],
            count_candidates(options.num_points),
            generator,
            near_share=options.near_share,
        )
        points = choose_uncertain_points(logits, candidates, options.num_points)
        point_logits = sample_maps(logits, points)
        targets = sample_true_masks(batch.masks, batch.mask_index[prompts], points)
        return mask_loss(point_logits, targets), dice_loss(point_logits, targets)


def disturb_maps(
    trunk_maps: Sequence[Tensor], options: MapNoise, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Noise and dropped channels of (I, C_l, h_l, w_l) maps."""
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
