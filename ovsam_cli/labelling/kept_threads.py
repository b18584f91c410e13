"""Threads of a run that goes on: as it began, wherever it goes on; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ovsam_cli.labelling.fingerprint import THREADS
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.outputs.json_values import JsonValue


def keep_threads(plan: RunPlan, settings: Mapping[str, JsonValue]) -> RunPlan:
    """The plan, to be computed with as many threads as the run began with.

    On a CPU they decide the last digits, so half a run with others would show in its result.

    Args:
        plan: whose options may ask for a number; that is then left alone.
        settings: of the run in the folder; empty where there is none.
    """
    options, threads = plan.request.options, settings.get(THREADS)
    if options.threads is not None or not isinstance(threads, int):
        return plan
    options = replace(options, threads=threads)
    return replace(plan, request=replace(plan.request, options=options))
