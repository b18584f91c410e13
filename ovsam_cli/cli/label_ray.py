"""`ovsam label --engine ray`: progress, summary and exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovsam_cli.cli.console import Console, ExitCode
from ovsam_cli.cli.progress import count_progress

if TYPE_CHECKING:
    from ovsam_cli.labelling.options import LabelRequest
    from ovsam_cli.labelling.part_ledger import PartStats
    from ovsam_cli.labelling.ray_run import PartsSummary


def run_label_on_ray(console: Console, request: LabelRequest, *, strict: bool) -> int:
    """Label what a request asks for on a Ray cluster; the exit code."""
    from ovsam_cli.labelling.plan import plan_run

    plan = plan_run(request)
    for notice in plan.notices:
        console.say(notice)
    from ovsam_cli.labelling.ray_run import finish_ray_run, open_ray_run

    with open_ray_run(plan, on_message=console.say) as run, count_progress(console) as on_progress:
        done, failed = run.num_finished, 0

        def on_part_done(stats: PartStats) -> None:
            nonlocal done, failed
            done, failed = done + stats.num_images, failed + stats.num_failed
            on_progress("images", done, len(plan.records), f"{failed} failed" if failed else "")
            console.event("part", {"part": stats.number, "done": done, "total": len(plan.records)})

        summary = finish_ray_run(run, on_part_done=on_part_done)
    _print_summary(console, summary)
    return _exit_code(summary, strict=strict)


def _print_summary(console: Console, summary: PartsSummary) -> None:
    console.say(
        f"{summary.num_labelled_now} images labelled in {summary.seconds:.1f} s; "
        f"{summary.num_objects} objects in {summary.num_images - summary.num_failed} images, "
        f"{summary.num_parts} parts"
    )
    if summary.num_failed or summary.num_notices:
        console.say(
            f"{summary.num_failed} images failed, {summary.num_notices} notices: "
            f"see {summary.place}/_ledger/errors.jsonl"
        )
    console.say(f"one COCO file: ovsam export coco {summary.place} --out annotations.json")
    console.result(summary.place)
    console.event(
        "finished",
        {
            "parts": summary.place,
            "num_images": summary.num_images,
            "num_failed": summary.num_failed,
            "num_annotations": summary.num_objects,
            "seconds": round(summary.seconds, 3),
        },
    )


def _exit_code(summary: PartsSummary, *, strict: bool) -> int:
    if strict and summary.num_failed:
        return ExitCode.STOPPED
    if summary.num_objects == 0:
        return ExitCode.NOTHING_WRITTEN
    return ExitCode.SOME_FAILED if summary.num_failed else ExitCode.FINISHED
