"""Whether scores mean what they say: of objects scored 0.7, seven in ten should be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovsam_cli.structures import BoolArray, FloatArray, IntArray

NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores against the truth, in bins of equal width over [0, 1].

    Attributes:
        error: expected calibration error; nan without objects.
        counts: (N,) int64 objects in each bin.
        mean_scores: (N,) float32; nan for an empty bin.
        shares_right: (N,) float32 share of right names; nan for an empty bin.
    """

    error: float
    counts: IntArray
    mean_scores: FloatArray
    shares_right: FloatArray


def compute_calibration(
    scores: FloatArray, is_right: BoolArray, *, num_bins: int = NUM_BINS
) -> Calibration:
    """Expected calibration error: mean |share right - mean score| of the bins, by their counts.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), equations 2, 3 and 5; bin m is
    (m / num_bins, (m + 1) / num_bins], and a score of 0 is in the first.

    Args:
        scores: (B,) float in [0, 1], of the best name each.
        is_right: (B,) bool, whether that name is the true one.
        num_bins: N.

    Raises:
        ValueError: the lengths differ, or a score is outside [0, 1].
    """
    if scores.shape != is_right.shape:
        raise ValueError(f"{scores.shape} scores, {is_right.shape} truths")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("a score is outside [0, 1]")
    upper_edges = np.arange(1, num_bins) / num_bins
    bins = np.searchsorted(upper_edges, scores, side="left")
    counts = np.bincount(bins, minlength=num_bins).astype(np.int64)
    score_sums = np.bincount(bins, scores, num_bins)
    right_sums = np.bincount(bins, is_right, num_bins)
    error = float(np.abs(right_sums - score_sums).sum() / len(scores)) if len(scores) else np.nan
    filled = np.where(counts > 0, counts, np.nan)
    return Calibration(
        error=error,
        counts=counts,
        mean_scores=(score_sums / filled).astype(np.float32),
        shares_right=(right_sums / filled).astype(np.float32),
    )
