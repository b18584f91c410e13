"""The temperature that makes scores mean what they say, from class logits in a file; no torch.

Guo et al., "On Calibration of Modern Neural Networks" (2017): one number T that divides all logits,
chosen by the likelihood of the true names. It never changes which name wins.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.evaluation.calibration import Calibration, CalibrationCounts
from ovsam_cli.structures import FloatArray, IntArray

LOWEST, HIGHEST = 0.02, 50.0
NUM_STEPS = 24  # of the golden section; the last interval is below 0.1 % of T
_GOLDEN = (5**0.5 - 1) / 2
NUM_FOLDS = 2


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """What a temperature does.

    Attributes:
        temperature: fitted on all images.
        fold_temperatures: fitted without the images of each fold.
        before: calibration of the logits as they are.
        after: calibration of each image by the temperature that was fitted without it.
        num_instances: objects whose name competes.
    """

    temperature: float
    fold_temperatures: tuple[float, ...]
    before: Calibration
    after: Calibration
    num_instances: int


class LogitFile:
    """Class logits of many objects in a temporary file, in half precision.

    Args:
        num_logits: L, names and background.
    """

    def __init__(self, num_logits: int) -> None:
        self._num_logits = num_logits
        self._file = tempfile.TemporaryFile()
        weakref.finalize(self, self._file.close)
        self._rows: list[NDArray[np.int16]] = []
        self._folds: list[NDArray[np.int8]] = []

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    def append(self, logits: FloatArray, true_rows: IntArray, fold: int) -> None:
        """Add the objects of an image.

        Args:
            logits: (B, L) float, any offset.
            true_rows: (B,) place of the true name.
            fold: of the image.
        """
        self._file.write(halve_logits(logits).tobytes())
        self._rows.append(true_rows.astype(np.int16))
        self._folds.append(np.full(len(true_rows), fold, np.int8))

    def iter_images(self) -> Iterator[tuple[FloatArray, IntArray, int]]:
        """Logits, true rows and fold of each image again."""
        self._file.seek(0)
        for rows, folds in zip(self._rows, self._folds, strict=True):
            raw = self._file.read(2 * len(rows) * self._num_logits)
            logits = np.frombuffer(raw, np.float16).reshape(len(rows), self._num_logits)
            yield (
                logits.astype(np.float32),
                rows.astype(np.int64),
                int(folds[0]) if len(rows) else 0,
            )


def halve_logits(logits: FloatArray) -> NDArray[np.float16]:
    """(B, L) logits of any offset less the largest of each row, in half precision."""
    # Near the best one, where a score is decided, half precision is finest.
    relative: FloatArray = logits - logits.max(axis=1, keepdims=True)
    halves: NDArray[np.float16] = relative.clip(-60000).astype(np.float16)
    return halves


def fit_temperature(logits: LogitFile) -> TemperatureFit:
    """Fit on all images, and measure on each what a fit without it gives."""
    folds = tuple(_minimize(logits, leave_out=fold) for fold in range(NUM_FOLDS))
    return TemperatureFit(
        temperature=_minimize(logits, leave_out=None),
        fold_temperatures=folds,
        before=_calibrate(logits, (1.0,) * NUM_FOLDS),
        after=_calibrate(logits, folds),
        num_instances=len(logits),
    )


def compute_loss(logits: LogitFile, temperature: float, *, leave_out: int | None) -> float:
    """Mean negative log-likelihood of the true names; nan without objects."""
    total, count = 0.0, 0
    for values, rows, fold in logits.iter_images():
        if fold != leave_out and len(rows):
            scaled = values / np.float32(temperature)
            norms = np.log(np.exp(scaled).sum(axis=1))  # the largest is 0
            total += float((norms - scaled[np.arange(len(rows)), rows]).sum())
            count += len(rows)
    return total / count if count else float("nan")


def _minimize(logits: LogitFile, *, leave_out: int | None) -> float:
    """Golden section in log T; the loss has one minimum, being convex in 1 / T."""
    low, high = np.log(LOWEST), np.log(HIGHEST)

    def loss(place: float) -> float:
        return compute_loss(logits, float(np.exp(place)), leave_out=leave_out)

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(NUM_STEPS):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return float(np.exp((low + high) / 2))


def _calibrate(logits: LogitFile, temperatures: tuple[float, ...]) -> Calibration:
    counts = CalibrationCounts()
    for values, rows, fold in logits.iter_images():
        probs = np.exp(values / np.float32(temperatures[fold]))
        probs /= probs.sum(axis=1, keepdims=True)
        names = probs[:, :-1]  # background never wins
        best = names.argmax(axis=1)
        scores = names[np.arange(len(rows)), best]
        for score, right in zip(scores.tolist(), (best == rows).tolist(), strict=True):
            counts.add(min(score, 1.0), right)
    return counts.summarize()
