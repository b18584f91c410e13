"""Whether scores mean what they say: of objects scored 0.7, seven in ten should be right."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    counts = CalibrationCounts(num_bins)
    for score, right in zip(scores.tolist(), is_right.tolist(), strict=True):
        counts.add(score, right)
    return counts.summarize()


class CalibrationCounts:
    """The bins of `compute_calibration`, filled one object at a time."""

    def __init__(self, num_bins: int = NUM_BINS) -> None:
        self.counts: IntArray = np.zeros(num_bins, np.int64)
        self._upper_edges = [number / num_bins for number in range(1, num_bins)]
        self._score_sums: NDArray[np.float64] = np.zeros(num_bins)
        self._right_sums: NDArray[np.float64] = np.zeros(num_bins)

    def add(self, score: float, is_right: bool) -> None:
        """Count an object.

        Raises:
            ValueError: the score is outside [0, 1].
        """
        if not 0 <= score <= 1:
            raise ValueError("a score is outside [0, 1]")
        place = bisect_left(self._upper_edges, score)
        self.counts[place] += 1
        self._score_sums[place] += score
        self._right_sums[place] += is_right

    def summarize(self) -> Calibration:
        """What the bins say."""
        total = int(self.counts.sum())
        gaps = np.abs(self._right_sums - self._score_sums)
        filled = np.where(self.counts > 0, self.counts, np.nan)
        return Calibration(
            error=float(gaps.sum() / total) if total else math.nan,
            counts=self.counts.copy(),
            mean_scores=(self._score_sums / filled).astype(np.float32),
            shares_right=(self._right_sums / filled).astype(np.float32),
        )
