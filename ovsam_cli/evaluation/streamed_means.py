"""Means with confidence intervals from a stream: memory does not grow with the images; no torch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.evaluation.bootstrap import (
    CONFIDENCE,
    NUM_RESAMPLES,
    Estimate,
    Spread,
    find_interval,
)


class StreamedMeans:
    """Means over objects, resampled image by image.

    The Poisson form of the cluster bootstrap: every image counts in every resample as often as a
    Poisson(1) number says, which for many images is drawing with replacement (Hanley and MacGibbon,
    "Creating non-parametric bootstrap samples using Poisson frequencies", 2006). The numbers of an
    image are the same for all means.

    Args:
        num_resamples: R.
        seed: of the draws.
    """

    def __init__(self, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._num_resamples = num_resamples
        self._series: dict[str, _Series] = {}

    def add_image(self, values: Iterable[tuple[str, float]]) -> None:
        """Add the objects of one image.

        Args:
            values: (series, value) of each object; an object may count in many series.
        """
        found: dict[str, list[float]] = {}
        for key, value in values:
            found.setdefault(key, []).append(value)
        weights = self._rng.poisson(1.0, self._num_resamples).astype(np.float64)
        for key, numbers in found.items():
            if key not in self._series:
                self._series[key] = _Series(self._num_resamples)
            self._series[key].add(numbers, weights)

    def estimate(self, *, confidence: float = CONFIDENCE) -> dict[str, Estimate]:
        """Mean and percentile interval of every series that has objects, by its name."""
        return {key: one.estimate(confidence) for key, one in self._series.items()}


class _Series:
    def __init__(self, num_resamples: int) -> None:
        self.total, self.count, self.num_images = 0.0, 0, 0
        self.least, self.greatest = np.inf, -np.inf
        self.totals: NDArray[np.float64] = np.zeros(num_resamples)
        self.counts: NDArray[np.float64] = np.zeros(num_resamples)

    def add(self, numbers: list[float], weights: NDArray[np.float64]) -> None:
        total, count = sum(numbers), len(numbers)
        self.total += total
        self.count += count
        self.num_images += 1
        self.least = min(self.least, *numbers)
        self.greatest = max(self.greatest, *numbers)
        self.totals += weights * total
        self.counts += weights * count

    def estimate(self, confidence: float) -> Estimate:
        drawn = self.counts > 0
        spread = Spread(self.num_images, self.least, self.greatest)
        means = self.totals[drawn] / self.counts[drawn]
        low, high = find_interval(means, spread, confidence)
        return Estimate(self.total / self.count, low, high, self.count)
