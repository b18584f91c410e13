"""How `tiny` names a region: a small head on trunk maps, and ImageNet's classes as its "CLIP"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import roi_align
from ovsam_cli.model.tiny_trunk import (
    HEAD_CHANNELS,
    NUM_IMAGENET_CLASSES,
    STAGE_CHANNELS,
    LiteTrunk,
)

STRIDES = (4, 8, 16, 32)
POOLED_SIZE = 3  # cells a side of a pooled region
GEOMETRY_SIZE = 2  # log width and height of the box
DESCRIPTOR_SIZE = HEAD_CHANNELS + POOLED_SIZE**2 * STAGE_CHANNELS[2] + sum(STAGE_CHANNELS[:2])
DESCRIPTOR_SIZE += GEOMETRY_SIZE


class TinyBackbone(LiteTrunk):
    """The trunk with a ConSE branch: ImageNet probabilities weigh the vectors of their names.

    Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (2014).
    """

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.register_buffer("imagenet_vectors", torch.zeros(NUM_IMAGENET_CLASSES, text_dim))
        self.imagenet_vectors: Tensor

    def embed_regions(
        self, clip_features: Tensor, boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Boxes (B, 4), input frame, on the (I, 320, h, w) last map -> (B, text_dim)."""
        regions = roi_align(clip_features, boxes_xyxy, image_index, 1 / STRIDES[-1], POOLED_SIZE)
        probs = self.imagenet_logits(regions).softmax(dim=-1)  # (B, 1000)
        return probs @ self.imagenet_vectors


class TrunkPyramid(nn.Module):
    """The place of the FPN: the maps as they are, and the trunk's own 1x1 head on the last.

    Frozen maps under the head make its input a fixed descriptor of a box, which training
    computes once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(STAGE_CHANNELS[-1], HEAD_CHANNELS, 1)

    def forward(self, trunk_maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps, finest first -> the first three and (I, 1280, h, w)."""
        return (*trunk_maps[:-1], F.relu6(self.head(trunk_maps[-1])))


class TinyRegionHead(nn.Module):
    """Boxes -> region embeddings.

    Args:
        text_dim: size of a region embedding.
        hidden_dim: of the layer between.
    """

    def __init__(self, *, text_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DESCRIPTOR_SIZE)
        self.lin1 = nn.Linear(DESCRIPTOR_SIZE, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, text_dim)

    def embed_regions(
        self, fpn_features: Sequence[Tensor], boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Pool and project boxes.

        Args:
            fpn_features: of `TrunkPyramid`.
            boxes_xyxy: (B, 4) float, input frame.
            image_index: (B,) int64.

        Returns:
            (B, text_dim) float, not normalized.
        """
        return self.forward(describe_regions(fpn_features, boxes_xyxy, image_index))

    def forward(self, descriptors: Tensor) -> Tensor:
        """(B, DESCRIPTOR_SIZE) -> (B, text_dim)."""
        hidden = F.relu(self.lin1(self.norm(descriptors)))
        output: Tensor = self.lin2(hidden)
        return output


def describe_regions(
    fpn_features: Sequence[Tensor], boxes_xyxy: Tensor, image_index: Tensor
) -> Tensor:
    """What the head reads of boxes.

    Returns:
        (B, DESCRIPTOR_SIZE) float: means of the finest two levels, the third level's cells,
        the mean of the last, log sides.
    """
    pooled = [
        roi_align(maps, boxes_xyxy, image_index, 1 / stride, POOLED_SIZE)
        for maps, stride in zip(fpn_features, STRIDES, strict=True)
    ]
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=1.0).log().to(pooled[0].dtype)
    means = [pooled[level].mean(dim=(2, 3)) for level in (0, 1, 3)]
    return torch.cat([means[0], means[1], pooled[2].flatten(1), means[2], sides], dim=1)
