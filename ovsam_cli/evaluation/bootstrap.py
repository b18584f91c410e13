"""How sure a mean is: confidence intervals by drawing the images again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import FloatArray, IntArray

NUM_RESAMPLES = 1000
INTERVALS = (
    "95 %, images resampled 1,000 times; none (-) for objects of one image; where all are right, "
    "or all wrong, Wilson's of as many trials as images"
)
CONFIDENCE = 0.95
FEWEST_IMAGES = 2  # a single one drawn again and again is always itself


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over objects with its confidence interval.

    Attributes:
        mean: nan without objects.
        low, high: nan where the objects cannot tell, see `find_interval`.
        num_instances: objects.
    """

    mean: float
    low: float
    high: float
    num_instances: int

    @classmethod
    def from_json(cls, values: Mapping[str, float | None]) -> Self:
        """Read what `metrics.json` has of it: null where there is no number."""
        mean, low, high = (
            np.nan if (one := values[key]) is None else one for key in ("mean", "low", "high")
        )
        return cls(mean, low, high, int(values["num_instances"] or 0))


@dataclass(frozen=True, slots=True)
class Spread:
    """What is known of the values of a mean besides the mean: images, least and greatest value."""

    num_images: int
    least: float
    greatest: float


def find_interval(
    means: NDArray[np.float64], spread: Spread, confidence: float
) -> tuple[float, float]:
    """Confidence interval of a mean from its resamples.

    Objects of a single image give none: (nan, nan). Where all values are 0, or all are 1, every
    resample says the same, as if the mean were certain; then the interval is Wilson's of a share
    (Wilson 1927) with images as trials, since objects of one image fail together.

    Args:
        means: (R,) resampled means.
        spread: of the values.
        confidence: share of the resampled means inside the interval.
    """
    if spread.num_images < FEWEST_IMAGES or not len(means):
        return np.nan, np.nan
    if spread.least == spread.greatest and spread.least in (0.0, 1.0):
        squared = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
        reach = squared / (spread.num_images + squared)
        return (0.0, reach) if spread.least == 0 else (1 - reach, 1.0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


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
    spread = Spread(len(sums), float(values.min()), float(values.max()))
    low, high = find_interval(means, spread, confidence)
    mean = float(np.asarray(values, np.float64).mean())
    return Estimate(mean, low, high, len(values))
