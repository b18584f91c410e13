"""What the training stages share towards their callers: who is told, and what comes of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.training.logs import LogLine
from ovsam_cli.training.loop import TrainingSummary


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told: in words, each line of the log, what is counted (what, done, of how many)."""

    on_message: Callable[[str], None]
    on_log: Callable[[LogLine], None]
    on_progress: Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class StageSummary:
    """How a call of a stage ended.

    Attributes:
        training: of the loop.
        path: the file of what was trained.
    """

    training: TrainingSummary
    path: Path
