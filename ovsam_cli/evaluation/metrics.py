"""How good masks and names are: pooled over instances, as the reference counts (spec section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovsam_cli.masks import mask_iou
from ovsam_cli.structures import FloatArray, IntArray, Rle

SMALL_AREA, LARGE_AREA = 32**2, 96**2  # COCO's limits, original pixels


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Mean IoU over all instances, and by COCO's area classes (nan where there are none)."""

    miou: float
    small: float
    medium: float
    large: float
    num_instances: int


@dataclass(frozen=True, slots=True)
class NameScores:
    """Shares of instances whose true name came first, or among the first five."""

    top1: float
    top5: float
    num_instances: int


def compute_ious(found: Sequence[Rle], truth: Sequence[Rle]) -> FloatArray:
    """(B,) float32 IoU of masks pairwise; 0 where both are empty."""
    pairs = zip(found, truth, strict=True)
    return np.asarray([mask_iou([one], [other])[0, 0] for one, other in pairs], np.float32)


def summarize_masks(ious: FloatArray, areas: IntArray) -> MaskScores:
    """Pool (B,) IoUs by (B,) areas of the true masks."""
    small, large = areas < SMALL_AREA, areas >= LARGE_AREA
    return MaskScores(
        miou=_mean(ious),
        small=_mean(ious[small]),
        medium=_mean(ious[~small & ~large]),
        large=_mean(ious[large]),
        num_instances=len(ious),
    )


def summarize_names(ranks: IntArray) -> NameScores:
    """Pool (B,) ranks: how many names beat the true one."""
    return NameScores(
        top1=_mean((ranks == 0).astype(np.float32)),
        top5=_mean((ranks < 5).astype(np.float32)),
        num_instances=len(ranks),
    )


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")
