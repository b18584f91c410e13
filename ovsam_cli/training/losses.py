"""Losses of CLIP2SAM training (spec section 7.2) and the points they are taken at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
BACKGROUND_WEIGHT = 0.1
OVERSAMPLING, IMPORTANT_SHARE = 3, 0.75
MARGIN = 0.3  # how far beyond a box "near" goes, as a share of its sides


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


def estimate_ious(logits: Tensor, truth: Tensor, shares: Tensor) -> Tensor:
    """IoU of predicted masks with the true ones, from places drawn at random.

    Args:
        logits: (B, M, C) at the places.
        truth: (B, C) in [0, 1], what the object covers there.
        shares: (B, C) of the frame that each place stands for, `weigh_candidates`.

    Returns:
        (B, M) float in [0, 1]; 0 for an empty mask.
    """
    found, truth, shares = (logits > 0).float(), truth[:, None], shares[:, None]
    overlap = (shares * found * truth).sum(dim=2)
    union = (shares * (found + truth - found * truth)).sum(dim=2)
    return overlap / union.clamp(min=1e-9)


def choose_masks(logits: Tensor, ious: Tensor, is_lone: Tensor) -> Tensor:
    """(B, M, C) logits -> (B, C): the single mask's, of lone points their best further mask's."""
    best = torch.zeros_like(is_lone, dtype=torch.int64)
    if ious.shape[1] > 1:
        best = torch.where(is_lone, ious[:, 1:].argmax(dim=1) + 1, 0)
    return logits.gather(1, best[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]


def weigh_masks(
    losses: Tensor, is_lone: Tensor, *, single_share: float = 0.0, other_share: float = 0.0
) -> Tensor:
    """How much each of a prompt's masks learns.

    Of a lone point's further masks the one with the smallest loss learns, as in SAM.

    Args:
        losses: (B, M) without weights.
        is_lone: (B,) bool.
        single_share: how much a lone point's single mask learns.
        other_share: how much those learn that were not its best, so that none is left behind.

    Returns:
        (B, M) float without gradient.
    """
    shares = torch.zeros_like(losses)
    shares[:, 0] = 1.0
    if losses.shape[1] == 1:
        return shares
    best = losses.detach()[:, 1:].argmin(dim=1)
    lone = torch.full_like(losses, other_share)
    lone[:, 0] = single_share
    lone[torch.arange(len(best), device=best.device), best + 1] = 1.0
    return torch.where(is_lone[:, None], lone, shares)


def iou_loss(iou_predictions: Tensor, ious: Tensor) -> Tensor:
    """Mean squared error of (n,) predicted IoUs, weight 1 (Kirillov et al. 2023, appendix A)."""
    return F.mse_loss(iou_predictions.float(), ious.float())


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


def choose_uncertain_points(logits: Tensor, candidates: Tensor, num_points: int) -> Tensor:
    """PointRend's choice: most points where the logits are nearest to zero, the rest anywhere.

    Args:
        logits: (B, C) of the candidates.
        candidates: (B, C, 2) points to choose from, in random order; the last ones are taken
            unseen, so C is `count_candidates(num_points)`.
        num_points: N.

    Returns:
        (B, N, 2) points in [0, 1], x first.
    """
    num_important = int(IMPORTANT_SHARE * num_points)
    num_seen = OVERSAMPLING * num_points
    seen, rest = candidates[:, :num_seen], candidates[:, num_seen:]
    chosen = logits[:, :num_seen].abs().topk(num_important, dim=1, largest=False).indices
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
) -> Tensor:
    """Candidates anywhere (the published rule), or most of them around the box.

    In a frame of 512 pixels uniform points would meet an object of 10 pixels once in 2,600.

    Args:
        boxes_xyxy: (B, 4) float in [0, 1].
        num_points: candidates a mask.
        generator: of the randomness.
        near_share: how many lie around the box.

    Returns:
        (B, num_points, 2) points in [0, 1], x first, in random order.
    """
    shape, device = (len(boxes_xyxy), num_points), boxes_xyxy.device
    points = torch.rand(*shape, 2, generator=generator, device=device)
    if near_share == 0:
        return points
    low, high = _grow(boxes_xyxy)
    near = low + points * (high - low)
    is_near = torch.rand(*shape, 1, generator=generator, device=device) < near_share
    return torch.where(is_near, near, points)


def weigh_candidates(boxes_xyxy: Tensor, candidates: Tensor, *, near_share: float) -> Tensor:
    """What share of the frame each of `sample_candidates` stands for, up to a factor.

    Args:
        boxes_xyxy: (B, 4) float in [0, 1].
        candidates: (B, C, 2) in [0, 1].
        near_share: how many were drawn around the box.

    Returns:
        (B, C) one over the density they were drawn with.
    """
    low, high = _grow(boxes_xyxy)
    is_near = ((candidates >= low) & (candidates <= high)).all(dim=2)
    density = is_near / (high - low).prod(dim=2).clamp(min=1e-6)
    return 1 / ((1 - near_share) + near_share * density).clamp(min=1e-6)


def _grow(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Corners (B, 1, 2) of what is near a box, within the frame."""
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    margin = MARGIN * (high - low)
    return (low - margin).clamp(min=0), (high + margin).clamp(max=1)
