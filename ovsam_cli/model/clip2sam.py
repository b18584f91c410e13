"""Naming a mask: FPN, region head, cosine logits, fusion with CLIP (spec sections 3.3, 5, 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import ConvUnit

FusionMode = Literal["auto", "head", "clip"]
BASE_KIND, NOVEL_KIND = 1, 2
IMPOSSIBLE_LOGIT = -1000.0  # of a category that is neither base nor novel, as the reference has it


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the head's and CLIP's opinions become one.

    Attributes:
        mode: `head` or `clip` alone, or `auto` for both, weighted by kind of category.
        category_kind: (K,) int64: 1 base (seen in training), 2 novel, 0 neither; only for `auto`.
        alpha: CLIP's share for base categories and background.
        beta: CLIP's share for the others.
    """

    mode: FusionMode = "auto"
    category_kind: Tensor | None = None
    alpha: float = 0.1
    beta: float = 0.9

    def __post_init__(self) -> None:
        if self.mode == "auto" and self.category_kind is None:
            raise ValueError("Fusion mode 'auto' needs category_kind, one number a category")


class Fpn(nn.Module):
    """Feature pyramid without norm or activation, for recognition only.

    Args:
        in_channels: channels of each level, finest first.
        out_channels: channels of every output.
    """

    def __init__(self, *, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(
            ConvUnit(nn.Conv2d(channels, out_channels, kernel_size=1)) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            ConvUnit(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
            for _ in in_channels
        )

    def forward(self, trunk_maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Merge (I, C_l, h_l, w_l) trunk maps into (I, D, h_l, w_l), finest first."""
        levels = [conv(maps) for conv, maps in zip(self.lateral_convs, trunk_maps, strict=True)]
        for finer in range(len(levels) - 2, -1, -1):
            size = levels[finer].shape[-2:]
            levels[finer] = levels[finer] + F.interpolate(levels[finer + 1], size, mode="nearest")
        return tuple(conv(level) for conv, level in zip(self.fpn_convs, levels, strict=True))


class RegionHead(nn.Sequential):
    """Boxes -> region embeddings from the FPN; as a module it is the official `roi_conv`.

    Args:
        in_channels: channels of the FPN.
        text_dim: size of a region embedding.
        roi_size: cells a side of a pooled region.
        strides: of the FPN levels, in input pixels.
        finest_scale: a box up to twice this side is pooled from the finest level.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        text_dim: int,
        roi_size: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        finest_scale: float = 56,
    ) -> None:
        super().__init__(ConvUnit(nn.Conv2d(in_channels, text_dim, kernel_size=1, bias=False)))
        self.roi_size = roi_size
        self.strides = tuple(strides)
        self.finest_scale = finest_scale

    def embed_regions(
        self, fpn_features: Sequence[Tensor], boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Pool and project regions.

        Args:
            fpn_features: (I, D, h_l, w_l) levels, finest first.
            boxes_xyxy: (B, 4) float, input frame.
            image_index: (B,) int64.

        Returns:
            (B, text_dim) float, not normalized.
        """
        regions = self.pool_regions(fpn_features, boxes_xyxy, image_index)
        return F.relu(self(regions)).mean(dim=(2, 3))  # (B, text_dim)

    def pool_regions(
        self, fpn_features: Sequence[Tensor], boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """(B, D, roi_size, roi_size) regions, each from the level that suits its size.

        On the other levels its box is empty, which pools to zero and costs nothing: picking a
        level's boxes would wait for the device to count them.
        """
        levels = assign_levels(boxes_xyxy, len(fpn_features), self.finest_scale)
        size = self.roi_size
        regions = fpn_features[0].new_zeros(len(boxes_xyxy), fpn_features[0].shape[1], size, size)
        for level, (maps, stride) in enumerate(zip(fpn_features, self.strides, strict=True)):
            own = torch.where((levels == level)[:, None], boxes_xyxy, 0.0)
            regions = regions + roi_align(maps, own, image_index, 1 / stride, size)
        return regions


def assign_levels(boxes_xyxy: Tensor, num_levels: int, finest_scale: float) -> Tensor:
    """(B,) int64 pyramid level of each (B, 4) box: one level up when the side doubles."""
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1).sqrt()
    levels = (sides / finest_scale + 1e-6).log2().floor()
    # A box turned inside out has no side: the finest level, like an empty one.
    return levels.nan_to_num(nan=0.0).clamp(0, num_levels - 1).long()


def roi_align(
    maps: Tensor, boxes_xyxy: Tensor, image_index: Tensor, scale: float, output_size: int
) -> Tensor:
    """Average-pool boxes from maps.

    Args:
        maps: (I, C, h, w).
        boxes_xyxy: (B, 4) float, input frame.
        image_index: (B,) int64.
        scale: map cells per input pixel.
        output_size: r, cells a side.

    Returns:
        (B, C, r, r), sampled at every cell a bin touches, half-pixel aligned.
    """
    from torchvision.ops import roi_align as torchvision_roi_align

    rows = torch.cat([image_index[:, None].to(maps.dtype), boxes_xyxy.to(maps.dtype)], dim=1)
    pooled: Tensor = torchvision_roi_align(
        maps, rows, output_size, spatial_scale=scale, sampling_ratio=-1, aligned=True
    )
    return pooled


def compute_mask_boxes(mask_logits: Tensor, model_size: int) -> Tensor:
    """Tight boxes of the masks, exclusive right and bottom.

    Args:
        mask_logits: (B, 1, R, R), padded model frame.
        model_size: side of the model frame in pixels.

    Returns:
        (B, 4) float xyxy, input frame; zeros for an empty mask.
    """
    masks = mask_logits[:, 0] > 0  # (B, R, R)
    stride = model_size // mask_logits.shape[-1]
    left, right = _first_and_end(masks.any(dim=1))
    top, bottom = _first_and_end(masks.any(dim=2))
    boxes = torch.stack([left, top, right, bottom], dim=1) * stride
    boxes = boxes.float() if mask_logits.dtype.itemsize < 4 else boxes.to(mask_logits.dtype)
    return boxes * masks.flatten(1).any(dim=1, keepdim=True)


def _first_and_end(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row of (B, R)."""
    numbers = occupied.to(torch.uint8)
    return numbers.argmax(dim=1), occupied.shape[1] - numbers.flip(1).argmax(dim=1)


def compute_class_logits(
    region_embeddings: Tensor, text_embeddings: Tensor, logit_scale: float
) -> Tensor:
    """Scaled cosine similarity to the best synonym of every category.

    Args:
        region_embeddings: (B, D) float, any norm.
        text_embeddings: (K, S, D) float, L2-normalized.
        logit_scale: log of the scale.

    Returns:
        (B, K + 1) float; the last column is background, whose embedding is zero.
    """
    regions = F.normalize(region_embeddings.float(), dim=-1)
    num_categories, num_synonyms, _ = text_embeddings.shape
    similarity = regions @ text_embeddings.float().flatten(0, 1).T  # (B, K * S)
    best = similarity.view(len(regions), num_categories, num_synonyms).amax(dim=-1)  # (B, K)
    scale = torch.tensor(logit_scale, dtype=torch.float32).exp().item()
    return F.pad(best * scale, (0, 1))  # (B, K + 1)


def fuse_logits(
    query_logits: Tensor, clip_logits: Tensor, has_mask: Tensor, fusion: Fusion
) -> Tensor:
    """Weighted geometric mean of both opinions, after softmax, in log space.

    Args:
        query_logits: (B, K + 1) float of the head.
        clip_logits: (B, K + 1) float of CLIP.
        has_mask: (B,) bool; CLIP has no say where the mask is empty.
        fusion: mode `auto`, with the kinds and shares.

    Returns:
        (B, K + 1) float log-probabilities, not renormalized; -1000 for categories of kind 0.
    """
    assert fusion.category_kind is not None  # checked when the Fusion was made
    kind = F.pad(fusion.category_kind, (0, 1), value=BASE_KIND)  # background counts as base
    share = torch.where(kind == BASE_KIND, fusion.alpha, fusion.beta).to(query_logits)  # (K + 1,)
    shares = share * has_mask[:, None]  # (B, K + 1)
    # The reference takes log(q^(1-a) * c^a); the same in log space cannot meet -inf * 0.
    fused = (1 - shares) * query_logits.log_softmax(-1) + shares * clip_logits.log_softmax(-1)
    return torch.where(kind == 0, IMPOSSIBLE_LOGIT, fused)
