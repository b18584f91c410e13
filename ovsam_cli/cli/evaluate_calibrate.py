"""`ovsam eval calibrate`: the temperature of a model's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.evaluate_options import (
    RESUME,
    SECONDS_TO_STOP,
    STOPPING,
    AsJson,
    BatchSize,
    Dataset,
    Devices,
    Dtype,
    Fusion,
    Images,
    MaxImages,
    Model,
    Names,
    Out,
    Overwrite,
    Prompt,
    Quiet,
    Restart,
)
from ovsam_cli.cli.stopping import StopSignals

if TYPE_CHECKING:
    from ovsam_cli.evaluation.calibrate import CalibrationReport
    from ovsam_cli.evaluation.prompted_options import PromptedRequest


def calibrate(
    dataset: Dataset,
    out: Out,
    images: Images = None,
    prompt: Prompt = "box",
    model: Model = "rn50x16",
    vocabulary: Names = None,
    fusion: Fusion = "auto",
    devices: Devices = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
    max_images: MaxImages = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and report, store nothing.")
    ] = False,
    restart: Restart = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit the temperature of scores and store it beside the weights, where label finds it."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console, how_to_resume=RESUME, seconds_to_stop=SECONDS_TO_STOP) as signals:
        from ovsam_cli.evaluation.prompted_options import PromptedRequest

        request = PromptedRequest(
            dataset=dataset,
            images=images,
            out=out,
            prompt=prompt,
            model=model,
            vocabulary=vocabulary,
            fusion=fusion,
            devices=devices,
            dtype=dtype,
            batch_size=batch_size,
            max_images=max_images,
            restart=restart,
            overwrite=overwrite,
        )
        raise typer.Exit(_run(console, signals, request, store=not dry_run))


def _run(console: Console, signals: StopSignals, request: PromptedRequest, *, store: bool) -> int:
    from ovsam_cli.cli.progress import count_progress
    from ovsam_cli.errors import InputError
    from ovsam_cli.evaluation.prompted_options import plan_prompted

    plan = plan_prompted(request)
    if plan.vocabulary is None:
        raise InputError(f"{request.dataset}: has masks without names; give data with names")
    from ovsam_cli.evaluation.calibrate import calibrate_scores  # torch loads here

    notice = "" if console.quiet or console.as_json else STOPPING
    with count_progress(console) as on_progress, signals.noted(notice):
        report = calibrate_scores(
            plan,
            store=store,
            on_message=console.say,
            on_images=lambda done, total: on_progress("images", done, total) if done else None,
            should_stop=signals.is_wanted,
        )
    return _finish(console, report)


def _finish(console: Console, report: CalibrationReport) -> int:
    from ovsam_cli.evaluation.calibration_page import describe_fit, write_calibration_page
    from ovsam_cli.evaluation.metrics_file import plain_fields, write_metrics

    content, fit = describe_fit(report), report.fit
    write_metrics(report.plan.request.out, content)
    page = write_calibration_page(report)
    console.result(f"temperature {fit.temperature:.3f}, fitted to {fit.num_instances:,} objects")
    console.result(
        f"expected calibration error {fit.before.error:.3f} at temperature 1, "
        f"{fit.after.error:.3f} after (each image by a fit without it)"
    )
    if fit.after.error > fit.before.error:
        console.say(
            f"warning: the temperature does not help on this data: calibration error "
            f"{fit.after.error:.4f} with it, {fit.before.error:.4f} at temperature 1; "
            f"too few images ({report.num_images:,})?"
        )
    if report.stored is not None:
        console.result(f"stored in {report.stored}; delete that file to undo it")
    for name, message in report.failures:
        console.say(f"{name}: {message}")
    console.say(str(page))
    console.event("finished", {**plain_fields(content)})
    return ExitCode.SOME_FAILED if report.failures else ExitCode.FINISHED
