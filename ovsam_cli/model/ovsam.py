"""The whole model: images + prompts -> mask logits and class logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import (
    Fusion,
    compute_class_logits,
    compute_mask_boxes,
    fuse_logits,
)
from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.layers import full_precision, in_full
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.parts import ImageTrunk, PromptedDecoder
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEmbeddings, PromptEncoder


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What one encoder run leaves of I images.

    Attributes:
        image_embeddings: (I, D, h, w).
        fpn_features: four maps (I, fpn_dim, h_l, w_l), finest first, in float32 or better.
        clip_features: (I, C, h_4, w_4) the trunk's last map, in float32 or better.
        input_hw: (height, width) of each image in the input frame, before padding.
        fine_features: (I, C, 4h, 4w) for a mask decoder that reads them, else None.
    """

    image_embeddings: Tensor
    fpn_features: tuple[Tensor, ...]
    clip_features: Tensor
    input_hw: tuple[tuple[int, int], ...]
    fine_features: Tensor | None = None


class OVSAM(nn.Module):
    """Open-Vocabulary SAM; attribute names are the official key prefixes.

    Args:
        config: the sizes the parts were built with, and the constants used here.
        backbone: image trunk, an ImageTrunk.
        neck: the trunk's four maps -> (I, D, h, w) image embeddings.
        pe: prompt encoder.
        fpn_neck: feature pyramid for recognition.
        mask_decoder: mask decoder with recognition head, a PromptedDecoder.
        fine_neck: the trunk's four maps -> (I, C, 4h, 4w) fine features, or None.
    """

    def __init__(
        self,
        *,
        config: OVSAMConfig,
        backbone: ImageTrunk,
        neck: nn.Module,
        pe: PromptEncoder,
        fpn_neck: nn.Module,
        mask_decoder: PromptedDecoder,
        fine_neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.neck = neck
        self.pe = pe
        self.fpn_neck = fpn_neck
        self.mask_decoder = mask_decoder
        self.fine_neck = fine_neck

    def encode_images(self, pixels: Tensor, input_hw: Sequence[tuple[int, int]]) -> ImageFeatures:
        """Run trunk, neck and FPN once for I images.

        Args:
            pixels: (I, 3, S, S) float, normalized, then padded with zeros right and bottom.
            input_hw: (height, width) of each image before padding.
        """
        trunk_maps = self.backbone(pixels)
        return ImageFeatures(
            image_embeddings=self.neck(trunk_maps),
            fpn_features=tuple(_for_regions(maps) for maps in self.fpn_neck(trunk_maps)),
            clip_features=_for_regions(trunk_maps[-1]),
            input_hw=tuple(input_hw),
            fine_features=None if self.fine_neck is None else self.fine_neck(trunk_maps),
        )

    def encode_prompts(self, prompts: ModelPrompts) -> PromptEmbeddings:
        """Embed B prompts, of any kinds and of any of the batch's images."""
        embeddings: PromptEmbeddings = self.pe(prompts)
        return embeddings

    def decode_masks(
        self, features: ImageFeatures, prompt_embeddings: PromptEmbeddings
    ) -> DecodedMasks:
        """One mask a prompt, foreground above 0: (B, 1, 4h, 4w) logits, padded model frame.

        Where the model has several masks for a lone point, the one of highest predicted IoU.
        """
        return self.mask_decoder(
            features.image_embeddings,
            self.pe.image_pe(),
            prompt_embeddings,
            features.fine_features,
        )

    def classify(
        self,
        features: ImageFeatures,
        mask_logits: Tensor,
        prompts: ModelPrompts,
        text_embeddings: Tensor,
        fusion: Fusion,
        *,
        clip_boxes_xyxy: Tensor | None = None,
    ) -> Tensor:
        """Name B masks.

        Args:
            features: of the batch's images.
            mask_logits: (B, 1, R, R) from `decode_masks`; the head pools each mask's box.
            prompts: of the same B masks.
            text_embeddings: (K, S, text_dim) float, L2-normalized.
            fusion: which opinions count and how much.
            clip_boxes_xyxy: (B, 4) float input frame, what the CLIP branch pools; None for
                the prompt's box, or the mask's where the prompt has none.

        Returns:
            (B, K + 1) float32 class logits, background last; log-probabilities when fused.
        """
        with full_precision(mask_logits.device):
            return self._classify(
                features, mask_logits, prompts, text_embeddings, fusion, clip_boxes_xyxy
            )

    def _classify(
        self,
        features: ImageFeatures,
        mask_logits: Tensor,
        prompts: ModelPrompts,
        text_embeddings: Tensor,
        fusion: Fusion,
        clip_boxes_xyxy: Tensor | None,
    ) -> Tensor:
        """`classify` without half precision: a rounded box is another region."""
        mask_boxes_xyxy = compute_mask_boxes(mask_logits, self.config.model_size)
        if fusion.mode == "head":
            return self._query_logits(features, mask_boxes_xyxy, prompts, text_embeddings)
        if clip_boxes_xyxy is None:
            clip_boxes_xyxy = torch.where(
                prompts.has_box[:, None], prompts.model_boxes_xyxy, mask_boxes_xyxy
            )
        clip_logits = self._clip_logits(features, clip_boxes_xyxy, prompts, text_embeddings)
        if fusion.mode == "clip":
            return clip_logits
        query_logits = self._query_logits(features, mask_boxes_xyxy, prompts, text_embeddings)
        # CLIP has no say where the mask has nothing left at the trunk's own resolution.
        coarse_hw = features.clip_features.shape[-2:]
        coarse = F.interpolate(mask_logits.float(), coarse_hw, mode="bilinear")  # (B, 1, h, w)
        return fuse_logits(query_logits, clip_logits, (coarse > 0).flatten(1).any(dim=1), fusion)

    def _query_logits(
        self, features: ImageFeatures, boxes: Tensor, prompts: ModelPrompts, text: Tensor
    ) -> Tensor:
        """(B, K + 1) logits of the recognition head."""
        head = self.mask_decoder.roi_conv
        regions = head.embed_regions(features.fpn_features, boxes, prompts.image_index)
        return compute_class_logits(regions, text, self.config.logit_scale)

    def _clip_logits(
        self, features: ImageFeatures, boxes: Tensor, prompts: ModelPrompts, text: Tensor
    ) -> Tensor:
        """(B, K + 1) logits of the CLIP branch."""
        regions = self.backbone.embed_regions(features.clip_features, boxes, prompts.image_index)
        return compute_class_logits(regions, text, self.config.logit_scale)


def _for_regions(maps: Tensor) -> Tensor:
    """Maps as regions are pooled from them, made so once an image and not once a chunk."""
    return in_full(maps).contiguous()
