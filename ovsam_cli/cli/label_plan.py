"""`ovsam label --dry-run`: what would be done, counted and estimated."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ovsam_cli.cli.console import Console, ExitCode

if TYPE_CHECKING:
    from ovsam_cli.labelling.options import LabelRequest


def show_plan(console: Console, request: LabelRequest) -> int:
    """Check everything that can be checked early, and say what would be done; the exit code."""
    from ovsam_cli.labelling.plan import plan_run

    plan = plan_run(request)
    for notice in plan.notices:
        console.say(notice)
    from ovsam_cli.labelling.forecast import make_forecast  # torch loads here, after the checks

    forecast = make_forecast(plan)
    for notice in forecast.notices:
        console.say(notice)
    console.result(plan.describe())
    console.result(forecast.describe())
    names = {"vocabulary": plan.vocabulary.name, "num_categories": len(plan.vocabulary.categories)}
    fields = asdict(forecast) | {"devices": list(forecast.devices)}
    console.event("plan", {**fields, **names, "model": request.model, "out": str(plan.out)})
    return ExitCode.FINISHED
