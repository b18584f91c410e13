"""How sure a mean is: confidence intervals by drawing the images again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import FloatArray, IntArray

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over objects with its confidence interval; all nan without objects."""

    mean: float
    low: float
    high: float
    num_instances: int


def estimate_mean(
    values: FloatArray,
    image_index: IntArray,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Mean over objects; percentile interval of the cluster bootstrap over images.

    Objects of one image fail together, so whole images are drawn, not objects (Efron and
    Tibshirani 1993, chapter 13, for the interval).

    Args:
        values: (B,) float, one an object.
        image_index: (B,) int64, which image each is of; images without objects do not count.
        num_resamples: how often as many images as there are get drawn, with replacement.
        confidence: share of the resampled means inside the interval.
        seed: of the draws.
    """
    if values.shape != image_index.shape:
        raise ValueError(f"{values.shape} values, {image_index.shape} images")
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan, 0)
    _, rows = np.unique(image_index, return_inverse=True)
    sums, counts = np.bincount(rows, values), np.bincount(rows)
    draws = np.random.default_rng(seed).integers(len(sums), size=(num_resamples, len(sums)))
    means: NDArray[np.float64] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(np.asarray(values, np.float64).mean())
    return Estimate(mean, float(low), float(high), len(values))
