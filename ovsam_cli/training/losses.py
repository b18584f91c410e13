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
    # No box at all costs nothing; a single background box still weighs a tenth.
    return CLASS_WEIGHT * (losses * (labels >= 0)).sum() / total.clamp(min=BACKGROUND_WEIGHT)


def mask_loss(point_logits: Tensor, point_targets: Tensor) -> Tensor:
    """Binary cross-entropy of (..., N) logits against targets in [0, 1], times 5: (...)."""
    losses = F.binary_cross_entropy_with_logits(point_logits, point_targets, reduction="none")
    return MASK_WEIGHT * losses.mean(dim=-1)


def dice_loss(point_logits: Tensor, point_targets: Tensor) -> Tensor:
    """1 - (2 sum(pg) + 1) / (sum p + sum g + 1) of (..., N) points, times 5: (...)."""
    probs = point_logits.sigmoid()
    overlap = 2 * (probs * point_targets).sum(dim=-1) + 1
    return DICE_WEIGHT * (1 - overlap / (probs.sum(dim=-1) + point_targets.sum(dim=-1) + 1))


def compute_cell_ious(mask_logits: Tensor, masks: Tensor, mask_index: Tensor) -> Tensor:
    """IoU of predicted masks, as they are at their own resolution, with the true ones.

    Args:
        mask_logits: (B, M, h, w).
        masks: (U, S, S) bool, S a multiple of h.
        mask_index: (B,) int64 rows of `masks`.

    Returns:
        (B, M) float in [0, 1], without gradient; 0 for an empty mask.
    """
    stride = masks.shape[-1] // mask_logits.shape[-1]
    with torch.no_grad():
        # A cell that the object covers in part counts in part, so that small objects count too.
        cover = F.avg_pool2d(masks[:, None].float(), stride)[mask_index]  # (B, 1, h, w)
        found = (mask_logits > 0).to(cover.dtype)
        overlap = (found * cover).sum(dim=(2, 3))
        union = found.sum(dim=(2, 3)) + cover.sum(dim=(2, 3)) - overlap
        return overlap / union.clamp(min=1e-6)


def iou_loss(iou_predictions: Tensor, ious: Tensor) -> Tensor:
    """Mean squared error of (n,) predicted IoUs, weight 1 (Kirillov et al. 2023, appendix A)."""
    return F.mse_loss(iou_predictions.float(), ious.float())


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of (B, 1, h, w) maps at (B, N, 2) points in [0, 1], x first: (B, N)."""
    grid = points[:, :, None] * 2 - 1  # (B, N, 1, 2)
    return F.grid_sample(maps, grid, align_corners=False)[:, 0, :, 0]


def sample_true_masks(masks: Tensor, mask_index: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of true masks, without making floats of whole frames.

    Args:
        masks: (U, S, S) bool.
        mask_index: (B,) int64 rows of `masks`.
        points: (B, N, 2) in [0, 1], x first.

    Returns:
        (B, N) float in [0, 1], as `sample_maps` has them; outside is 0.
    """
    size = masks.shape[-1]
    places = points * size - 0.5
    first = places.floor()
    share = places - first
    values = torch.zeros_like(share[..., 0])
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = first[..., 0] + dx, first[..., 1] + dy
            weight = (share[..., 0] if dx else 1 - share[..., 0]) * (
                share[..., 1] if dy else 1 - share[..., 1]
            )
            is_inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
            cells = x.long().clamp(0, size - 1), y.long().clamp(0, size - 1)
            found = masks[mask_index[:, None], cells[1], cells[0]] & is_inside
            values = values + weight * found
    return values


def choose_uncertain_points(mask_logits: Tensor, candidates: Tensor, num_points: int) -> Tensor:
    """PointRend's choice: most points where the logits are nearest to zero, the rest anywhere.

    Args:
        mask_logits: (B, 1, h, w).
        candidates: (B, C, 2) points to choose from, in random order; the last ones are taken
            unseen, so C is `count_candidates(num_points)`.
        num_points: N.

    Returns:
        (B, N, 2) points in [0, 1], x first.
    """
    num_important = int(IMPORTANT_SHARE * num_points)
    num_seen = OVERSAMPLING * num_points
    seen, rest = candidates[:, :num_seen], candidates[:, num_seen:]
    with torch.no_grad():
        uncertainty = -sample_maps(mask_logits, seen.to(mask_logits.dtype)).abs()
        chosen = uncertainty.topk(num_important, dim=1).indices  # (B, important)
    important = seen.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([important, rest], dim=1)


def count_candidates(num_points: int) -> int:
    """Candidates a mask for `choose_uncertain_points`."""
    return OVERSAMPLING * num_points + num_points - int(IMPORTANT_SHARE * num_points)


def sample_candidates(
    boxes_xyxy: Tensor,
    num_points: int,
    generator: torch.Generator,
    *,
    near_share: float = 0.0,
    margin: float = 0.3,
) -> Tensor:
    """Candidates anywhere (the published rule), or most of them around the box.

    In a frame of 512 pixels uniform points would meet an object of 10 pixels once in 2,600.

    Args:
        boxes_xyxy: (B, 4) float in [0, 1].
        num_points: candidates a mask.
        generator: of the randomness.
        near_share: how many lie around the box.
        margin: how far beyond the box, as a share of its sides.

    Returns:
        (B, num_points, 2) points in [0, 1], x first, in random order.
    """
    shape, device = (len(boxes_xyxy), num_points), boxes_xyxy.device
    points = torch.rand(*shape, 2, generator=generator, device=device)
    if near_share == 0:
        return points
    corner, size = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2]
    near = corner - margin * size + points * size * (1 + 2 * margin)
    is_near = torch.rand(*shape, 1, generator=generator, device=device) < near_share
    return torch.where(is_near, near.clamp(0, 1 - 1e-6), points)
