"""Running `ovsam label`: progress, summary and exit code; its options stand in `label.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovsam_cli.cli.console import Console, ExitCode
from ovsam_cli.cli.stopping import StopSignals

if TYPE_CHECKING:
    from ovsam_cli.labelling.options import LabelRequest
    from ovsam_cli.labelling.plan import RunPlan
    from ovsam_cli.labelling.run import Run
    from ovsam_cli.labelling.run_files import RunSummary

STOPPING = "\nfinishing the images in hand; once more stops at once\n"


def run_label(
    console: Console, signals: StopSignals, request: LabelRequest, *, strict: bool
) -> int:
    """Label what a request asks for.

    Args:
        console: where progress and the summary go.
        signals: end the run in good order.
        request: what was asked for.
        strict: failed images make the exit code 1.

    Returns:
        The exit code.
    """
    if request.engine == "ray":
        from ovsam_cli.cli.label_ray import run_label_on_ray

        return run_label_on_ray(console, request, strict=strict)
    return _exit_code(_run(console, signals, request), strict=strict)


def _run(console: Console, signals: StopSignals, request: LabelRequest) -> RunSummary:
    from ovsam_cli.labelling.finished_files import recall_finished
    from ovsam_cli.labelling.plan import plan_run

    plan = plan_run(request)
    for notice in plan.notices:
        console.say(notice)
    summary = recall_finished(plan) or _label(console, signals, plan)
    _print_summary(console, summary)
    return summary


def _label(console: Console, signals: StopSignals, plan: RunPlan) -> RunSummary:
    from ovsam_cli.cli.memory import keep_freed_memory
    from ovsam_cli.cli.progress import image_progress
    from ovsam_cli.labelling.run import finish_run, open_run  # torch loads here, after the checks

    keep_freed_memory()
    with open_run(plan, on_message=console.say, on_worker_start=keep_freed_memory) as run:
        _say_start(console, run)
        notice = "" if console.quiet or console.as_json else STOPPING
        with (
            image_progress(console, len(run.records), run.num_finished) as on_image_done,
            signals.noted(notice),
        ):
            return finish_run(
                run,
                on_image_done=on_image_done,
                on_message=console.say,
                should_stop=signals.is_wanted,
            )


def _say_start(console: Console, run: Run) -> None:
    """What is about to be done with what, for `-v` and `--json`."""
    facts = run.engine.facts
    console.detail(f"weights {facts.weights['name']}, sha256 {facts.weights['sha256']}")
    console.detail(f"{facts.device}, {facts.dtype}, {facts.batch_size} images a step")
    console.detail(f"{len(run.records)} images, {run.num_finished} of them finished before")
    console.event(
        "started",
        {
            "out": str(run.plan.out),
            "num_images": len(run.records),
            "num_finished": run.num_finished,
            "num_categories": len(run.plan.vocabulary.categories),
            "device": facts.device,
            "dtype": facts.dtype,
        },
    )


def _print_summary(console: Console, summary: RunSummary) -> None:
    coco = summary.coco
    console.say(
        f"{summary.num_labelled_now} images labelled in {summary.seconds:.1f} s; "
        f"{coco.num_annotations} objects in {coco.num_images} images"
    )
    if summary.num_failed or summary.num_notices:
        console.say(
            f"{summary.num_failed} images failed, {summary.num_notices} notices: "
            f"see {summary.send_to or summary.out}/errors.jsonl"
        )
    if coco.num_masks_with_lost_holes:
        console.say(f"polygons lost the holes of {coco.num_masks_with_lost_holes} masks")
    annotations = f"{summary.send_to or summary.out}/annotations.json"
    console.result(annotations)
    console.event(
        "finished",
        {
            "annotations": annotations,
            "num_images": summary.num_images,
            "num_failed": summary.num_failed,
            "num_annotations": coco.num_annotations,
            "seconds": round(summary.seconds, 3),
        },
    )


def _exit_code(summary: RunSummary, *, strict: bool) -> int:
    if strict and summary.num_failed:
        return ExitCode.STOPPED
    if summary.coco.num_annotations == 0:
        return ExitCode.NOTHING_WRITTEN
    return ExitCode.SOME_FAILED if summary.num_failed else ExitCode.FINISHED
