"""The whole model: images + prompts -> mask logits and class logits; its sizes and presets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import (
    Fusion,
    compute_class_logits,
    compute_mask_boxes,
    fuse_logits,
)
from ovsam_cli.model.layers import full_precision, in_full
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.parts import ImageTrunk, PromptedDecoder
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEmbeddings, PromptEncoder

TrunkName = Literal["clip-resnet", "efficientnet-lite0"]
TextTowerName = Literal["clip-rn50x16", "minilm-l6"]


@dataclass(frozen=True, slots=True)
class OVSAMConfig:
    """Sizes and constants of a model; saved in the checkpoint beside the weights.

    Attributes:
        name: what the user calls it.
        trunk: which image trunk (and neck) the builder makes.
        model_size: side of the square model frame in pixels.
        pixel_mean, pixel_std: of RGB values 0..255; subtracted, divided by.
        resize: how `images.preprocess` scales to the model size.
        embed_dim, grid_size: D and side of an image embedding.
        decoder_depth, decoder_heads, decoder_mlp_dim: of the two-way transformer.
        iou_head: whether the decoder predicts each mask's IoU; the published weights do not.
        num_point_masks: 0, or the number of masks that a lone point has to choose from beside
            the single one (3 in SAM); needs `iou_head`.
        text_dim, text_tower: size of a class embedding and the tower that makes it.
        fpn_channels, fpn_strides: of the trunk's four maps, finest first.
        fpn_dim, fpn_finest_scale: of the FPN, and the box side its finest level suits.
        head_roi_size, clip_roi_size: cells a side of a pooled region, head and CLIP branch.
        logit_scale: log of the factor on cosine similarities.
        stability_offset: logits by which a mask is cut higher and lower for its stability.
        grid_min_stability, grid_min_iou: lowest stability and predicted IoU that the automatic mode
            keeps unless told otherwise; SAM's generator has 0.95 and 0.88.
        alpha, beta: CLIP's share for base categories and for the others.
        trained_on: names, or vocabularies such as `lvis:base`, that the head saw in training.
        trunk_layers, trunk_width, trunk_heads, trunk_image_size: of the CLIP trunk.
        neck_dim, neck_depth, neck_heads, neck_window: of the SAM2CLIP neck.
    """

    name: str
    trunk: TrunkName = "clip-resnet"
    model_size: int = 1024
    pixel_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    resize: str = "cv2_bilinear"
    embed_dim: int = 256
    grid_size: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head: bool = False
    num_point_masks: int = 0
    text_dim: int = 768
    text_tower: TextTowerName = "clip-rn50x16"
    fpn_channels: tuple[int, ...] = (384, 768, 1536, 3072)
    fpn_strides: tuple[int, ...] = (4, 8, 16, 32)
    fpn_dim: int = 256
    fpn_finest_scale: float = 56.0
    head_roi_size: int = 12
    clip_roi_size: int = 12
    logit_scale: float = 4.6052
    stability_offset: float = 1.0
    grid_min_stability: float = 0.9
    grid_min_iou: float = 0.88
    alpha: float = 0.1
    beta: float = 0.9
    trained_on: tuple[str, ...] = ()
    trunk_layers: tuple[int, ...] = (6, 8, 18, 8)
    trunk_width: int = 96
    trunk_heads: int = 48
    trunk_image_size: int = 384
    neck_dim: int = 1280
    neck_depth: int = 5
    neck_heads: int = 16
    neck_window: int = 14

    def to_json(self) -> str:
        """One line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> OVSAMConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, not an object, or a field this version does not know.
        """
        values = json.loads(text, object_hook=_freeze)
        if not isinstance(values, dict):
            raise ValueError(f"a model config is a JSON object, not {type(values).__name__}")
        unknown = sorted(values.keys() - {field.name for field in fields(OVSAMConfig)})
        if unknown or "name" not in values:
            raise ValueError(f"model config: unknown fields {unknown} or no name")
        config = OVSAMConfig(**values)
        config.check()
        return config

    def check(self) -> None:
        """Raise ValueError for a type unlike the published preset's, or sizes that do not fit."""
        reference = OVSAMConfig(name="")
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(getattr(reference, field.name))
            if not isinstance(value, (float, int) if wanted is float else wanted):
                raise ValueError(f"model config: {field.name} ({value!r}) is no {wanted.__name__}")
        if self.num_point_masks < 0 or (self.num_point_masks and not self.iou_head):
            raise ValueError(
                f"model config: num_point_masks ({self.num_point_masks}) must be 0, or more with "
                "iou_head, which chooses among them"
            )


def _freeze(values: dict[str, object]) -> dict[str, object]:
    """JSON's lists as tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


PRESETS: dict[str, OVSAMConfig] = {
    "rn50x16": OVSAMConfig(name="rn50x16", trained_on=("lvis:base",)),
}


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
