"""From answers to figures: means with intervals over images, calibration, trivial baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from figure_answers import AnnotatedSet, Names, SetAnswers

from ovsam_cli.evaluation.baselines import draw_baseline
from ovsam_cli.evaluation.bootstrap import Estimate, estimate_mean
from ovsam_cli.evaluation.calibration import compute_calibration
from ovsam_cli.evaluation.metrics import LARGE_AREA, SMALL_AREA, compute_ious
from ovsam_cli.evaluation.protocol import PromptKind
from ovsam_cli.structures import BoolArray, FloatArray, IntArray

SIZES = ("small", "medium", "large")
BASELINES: tuple[Literal["box", "ellipse"], ...] = ("box", "ellipse")


@dataclass(frozen=True, slots=True)
class Bin:
    """Objects whose score is in one of the calibration's bins; None for an empty bin."""

    num_instances: int
    mean_score: float | None
    share_right: float | None


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What was measured on one data set.

    Attributes:
        name: of the set.
        num_images, num_instances, num_named: images, objects, objects whose name competes.
        vocabulary, num_names: the names that compete.
        estimates: by what they are of, see `measure_set`; none of no objects, for JSON has no nan.
        calibration_error: of the scores of names, box prompts; None without named objects.
        calibration_bins: what it was computed from.
    """

    name: str
    num_images: int
    num_instances: int
    num_named: int
    vocabulary: str
    num_names: int
    estimates: dict[str, Estimate]
    calibration_error: float | None
    calibration_bins: tuple[Bin, ...]


def read_set_figures(entry: Mapping[str, object]) -> SetFigures:
    """Read the plain values of `dataclasses.asdict`."""
    values = dict(entry)
    estimates, bins = values.pop("estimates"), values.pop("calibration_bins")
    assert isinstance(estimates, dict) and isinstance(bins, list | tuple)
    found = {key: Estimate(**one) for key, one in estimates.items()}
    found_bins = tuple(Bin(**one) for one in bins)
    return SetFigures(**values, estimates=found, calibration_bins=found_bins)  # type: ignore[arg-type]


def measure_set(
    asked: AnnotatedSet, names: Names, answers: Mapping[PromptKind, SetAnswers]
) -> SetFigures:
    """All figures of a set.

    The estimates are `box`, `center` (mean IoU by prompt), `filled box`, `ellipse` (what costs
    nothing), each also with ` small`, ` medium`, ` large` behind; `box IoU error`, `center IoU
    error` (mean |predicted - true IoU|, only with an IoU head); `top1`, `top5` (box prompts, both
    branches), the same with `head `, `clip ` (one branch), `center ` (centre prompts) or `near `
    (names near an ImageNet class) before; `majority` (always the commonest name). Objects whose
    name is not in the vocabulary count for masks alone.
    """
    values = _mask_values(asked, answers) | _name_values(asked, names, answers)
    images = asked.image_index
    is_right = answers["box"].best_rows == asked.true_rows
    named = asked.true_rows >= 0
    calibration = compute_calibration(answers["box"].scores[named], is_right[named])
    return SetFigures(
        name=asked.name,
        num_images=len(asked.dataset.images),
        num_instances=len(images),
        num_named=int(named.sum()),
        vocabulary=asked.vocabulary.name,
        num_names=len(asked.vocabulary),
        estimates={
            key: estimate_mean(found, images[chosen])
            for key, (found, chosen) in values.items()
            if len(found)
        },
        calibration_error=_or_none(calibration.error),
        calibration_bins=tuple(
            Bin(int(count), _or_none(score), _or_none(share))
            for count, score, share in zip(
                calibration.counts, calibration.mean_scores, calibration.shares_right, strict=True
            )
        ),
    )


# One number an object, and which objects they are of: (n,) float32, (B,) bool with n true.
Values = dict[str, tuple[FloatArray, BoolArray]]


def _mask_values(asked: AnnotatedSet, answers: Mapping[PromptKind, SetAnswers]) -> Values:
    truth = [one.segmentation for one in asked.instances]
    ious: dict[str, FloatArray] = {kind: found.ious for kind, found in answers.items()}
    for shape, key in zip(BASELINES, ("filled box", "ellipse"), strict=True):
        ious[key] = compute_ious([draw_baseline(one, shape) for one in truth], truth)
    areas = np.asarray([one.area for one in asked.instances], np.int64)
    everything = np.ones(len(truth), bool)
    values: Values = {}
    for key, found in ious.items():
        values[key] = found, everything
        for size, chosen in zip(SIZES, split_by_area(areas), strict=True):
            values[f"{key} {size}"] = found[chosen], chosen
    for kind, answer in answers.items():
        if answer.predicted_ious is not None:
            values[f"{kind} IoU error"] = np.abs(answer.predicted_ious - answer.ious), everything
    return values


def split_by_area(areas: IntArray) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Which of (B,) areas are small, medium and large, by COCO's limits."""
    small, large = areas < SMALL_AREA, areas >= LARGE_AREA
    return small, ~small & ~large, large


def _name_values(
    asked: AnnotatedSet, names: Names, answers: Mapping[PromptKind, SetAnswers]
) -> Values:
    rows = asked.true_rows
    named = rows >= 0
    box, center = answers["box"].ranks, answers["center"].ranks
    sources = {"": box["auto"], "head ": box["head"], "clip ": box["clip"]}
    chosen = {"": named, "head ": named, "clip ": named, "center ": named}
    sources["center "] = center["auto"]
    if names.is_near is not None:
        sources["near "], chosen["near "] = box["auto"], named & names.is_near[rows]
    values: Values = {}
    for prefix, ranks in sources.items():
        kept = chosen[prefix]
        values[f"{prefix}top1"] = (ranks[kept] == 0).astype(np.float32), kept
        values[f"{prefix}top5"] = (ranks[kept] < 5).astype(np.float32), kept
    values["majority"] = mark_commonest(rows[named]), named
    return values


def mark_commonest(rows: IntArray) -> FloatArray:
    """(n,) float32: 1 for the objects of the commonest name; `rows` (n,) are their names."""
    if not len(rows):
        return np.empty(0, np.float32)
    return np.asarray(rows == np.bincount(rows).argmax(), np.float32)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
