"""What the training stages share towards their callers: who is told, and what comes of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.training.logs import LogLine


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told: in words, each line of the log, what is counted (what, done, of how many)."""

    on_message: Callable[[str], None]
    on_log: Callable[[LogLine], None]
    on_progress: Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a call of `train` ended.

    Attributes:
        steps: done so far, by earlier calls too.
        seconds: of training so far, without validation.
        is_finished: the schedule's end was reached; else the same call again goes on.
        best_score: greatest score of the validations, -inf without any.
        checkpoint: `best.pt` where there was a validation, else `last.pt`;
            `load_trained_weights` reads either.
    """

    steps: int
    seconds: float
    is_finished: bool
    best_score: float
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class StageSummary:
    """How a call of a stage ended.

    Attributes:
        training: of the loop.
        path: the file of what was trained.
    """

    training: TrainingSummary
    path: Path
