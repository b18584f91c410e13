"""Figures that `ovsam eval` does not give: predicted IoU, names near an ImageNet class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from figure_answers import AnnotatedSet, Names, SetAnswers

from ovsam_cli.evaluation.bootstrap import Estimate, estimate_mean
from ovsam_cli.evaluation.protocol import PromptKind

KEYS = ("box IoU error", "center IoU error", "near top1", "near top5")


@dataclass(frozen=True, slots=True)
class SetFigures:
    """What was measured on one data set.

    Attributes:
        name: of the set.
        num_images, num_instances: images, and objects.
        vocabulary, num_names: the names that compete.
        estimates: by what they are of, see `measure_set`; none of no objects.
    """

    name: str
    num_images: int
    num_instances: int
    vocabulary: str
    num_names: int
    estimates: dict[str, Estimate]


def read_set_figures(entry: Mapping[str, object]) -> SetFigures:
    """Read the plain values of `dataclasses.asdict`; figures of other names are passed over."""
    values = {name: entry[name] for name in SetFigures.__slots__}
    estimates = values.pop("estimates")
    assert isinstance(estimates, dict)
    found = {key: Estimate.from_json(estimates[key]) for key in KEYS if key in estimates}
    return SetFigures(**values, estimates=found)  # type: ignore[arg-type]


def measure_set(
    asked: AnnotatedSet, names: Names, answers: Mapping[PromptKind, SetAnswers]
) -> SetFigures:
    """All figures of a set.

    The estimates are `box IoU error`, `center IoU error` (mean |predicted - true IoU|, only with an
    IoU head), and `near top1`, `near top5` (names near an ImageNet class, box prompts).
    """
    images = asked.image_index
    estimates = {
        f"{kind} IoU error": estimate_mean(np.abs(answer.predicted_ious - answer.ious), images)
        for kind, answer in answers.items()
        if answer.predicted_ious is not None
    }
    if names.is_near is not None:
        rows = asked.true_rows
        kept = (rows >= 0) & names.is_near[rows]
        ranks = answers["box"].ranks[kept]
        if len(ranks):
            for top in (1, 5):
                is_right = (ranks < top).astype(np.float32)
                estimates[f"near top{top}"] = estimate_mean(is_right, images[kept])
    return SetFigures(
        name=asked.name,
        num_images=len(asked.dataset.images),
        num_instances=len(images),
        vocabulary=asked.vocabulary.name,
        num_names=len(asked.vocabulary),
        estimates=estimates,
    )
