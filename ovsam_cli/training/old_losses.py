"""Losses of CLIP2SAM training (spec section 7.2) and the points they are taken at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
BACKGROUND_WEIGHT = 0.1
OVERSAMPLING, IMPORTANT_SHARE = 3, 0.75


def classification_loss(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Weighted softmax cross-entropy, times 2.

    Args:
        class_logits: (B, K + 1), background last.
        labels: (B,) int64 rows; -1 is left out of the sum, yet counted as 1 below.

    Returns:
        Scalar. A background label weighs 0.1; the normalizer is the sum of the labels' weights.
    """
    weights = class_logits.new_ones(class_logits.shape[1])
    weights[-1] = BACKGROUND_WEIGHT
    losses = F.cross_entropy(class_logits, labels.clamp(min=0), weight=weights, reduction="none")
    total = weights[labels.clamp(min=0)].sum()
    return CLASS_WEIGHT * (losses * (labels >= 0)).sum() / total


def mask_loss(point_logits: Tensor, point_targets: Tensor) -> Tensor:
    """Binary cross-entropy of (B, N) logits against targets in [0, 1], times 5."""
    return MASK_WEIGHT * F.binary_cross_entropy_with_logits(point_logits, point_targets)


def dice_loss(point_logits: Tensor, point_targets: Tensor) -> Tensor:
    """Mean over (B, N) masks of 1 - (2 sum(pg) + 1) / (sum p + sum g + 1), times 5."""
    probs = point_logits.sigmoid()
    overlap = 2 * (probs * point_targets).sum(dim=1) + 1
    return DICE_WEIGHT * (1 - overlap / (probs.sum(dim=1) + point_targets.sum(dim=1) + 1)).mean()


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of (B, 1, h, w) maps at (B, N, 2) points in [0, 1], x first: (B, N)."""
    grid = points[:, :, None] * 2 - 1  # (B, N, 1, 2)
    return F.grid_sample(maps, grid, align_corners=False)[:, 0, :, 0]


def sample_uncertain_points(
    mask_logits: Tensor,
    num_points: int,
    generator: torch.Generator,
    candidates: Tensor | None = None,
) -> Tensor:
    """PointRend's choice: most points where the logits are nearest to zero, the rest anywhere.

    Args:
        mask_logits: (B, 1, h, w).
        num_points: N.
        generator: of the randomness.
        candidates: (B, 3 N, 2) points to choose from; None for uniform ones.

    Returns:
        (B, N, 2) points in [0, 1], x first.
    """
    count = len(mask_logits)
    if candidates is None:
        candidates = torch.rand(count, OVERSAMPLING * num_points, 2, generator=generator)
    num_important = int(IMPORTANT_SHARE * num_points)
    with torch.no_grad():
        uncertainty = -sample_maps(mask_logits, candidates).abs()
        chosen = uncertainty.topk(num_important, dim=1).indices  # (B, important)
    important = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    rest = candidates[:, : num_points - num_important]
    return torch.cat([important, rest], dim=1)


def sample_candidates(
    boxes_xyxy: Tensor, num_points: int, generator: torch.Generator, margin: float = 0.3
) -> Tensor:
    """Candidates for small objects too: two thirds around the box, the others anywhere.

    In a frame of 512 pixels uniform points would meet an object of 10 pixels once in 2,600.

    Args:
        boxes_xyxy: (B, 4) float in [0, 1].
        num_points: candidates a mask.
        generator: of the randomness.
        margin: how far beyond the box, as a share of its sides.

    Returns:
        (B, num_points, 2) points in [0, 1], x first, in random order.
    """
    points = torch.rand(len(boxes_xyxy), num_points, 2, generator=generator)
    corner, size = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2]
    near = corner - margin * size + points * size * (1 + 2 * margin)
    is_near = torch.rand(len(boxes_xyxy), num_points, 1, generator=generator) < 2 / 3
    return torch.where(is_near, near.clamp(0, 1 - 1e-6), points)
