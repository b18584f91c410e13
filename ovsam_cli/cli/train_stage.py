"""What the commands of both training stages share: who is told, and how a run's end is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from ovsam_cli.cli.console import Console
from ovsam_cli.cli.progress import count_progress, is_first_rank

if TYPE_CHECKING:
    from ovsam_cli.training.stages import Listeners, StageSummary

RESUME = "Run the same command again to go on."


def run_stage(console: Console, train: Callable[[Listeners], StageSummary]) -> None:
    """Train with progress on the terminal, and print where the weights are."""
    from ovsam_cli.training.stages import Listeners

    with count_progress(console) as on_progress:
        summary = train(
            Listeners(console.say, lambda line: console.say(json.dumps(dict(line))), on_progress)
        )
    if not summary.training.is_finished:
        console.say(f"stopped after {summary.training.steps} steps. {RESUME}")
    if is_first_rank():
        console.result(str(summary.path))
