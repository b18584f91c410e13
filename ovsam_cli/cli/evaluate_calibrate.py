"""`ovsam eval calibrate`: the temperature of a model's scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors

if TYPE_CHECKING:
    from ovsam_cli.evaluation.calibrate import CalibrationReport
    from ovsam_cli.outputs.json_values import JsonValue


def calibrate(
    dataset: Annotated[
        str, typer.Argument(help="COCO or LVIS file, or folder; see `ovsam eval prompted`.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; default: the layout's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json.")] = None,
    prompt: Annotated[str, typer.Option(help="box, point, points:K or random-point.")] = "box",
    model: Annotated[str, typer.Option(help="As of `ovsam label`.")] = "rn50x16",
    vocabulary: Annotated[
        str | None, typer.Option("--vocab", help="Names that compete; default: the data's own.")
    ] = None,
    fusion: Annotated[
        Literal["auto", "head", "clip"], typer.Option(help="Which branches the scores are of.")
    ] = "auto",
    devices: Annotated[str, typer.Option(help="As of `ovsam label`.")] = "auto",
    max_images: Annotated[
        int | None, typer.Option(min=1, help="The first ones; default: all.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and report, store nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")] = False,
) -> None:
    """Fit the temperature of scores and store it beside the weights, where label finds it."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console) as signals:
        from ovsam_cli.cli.progress import count_progress
        from ovsam_cli.errors import InputError
        from ovsam_cli.evaluation.metrics_file import write_metrics
        from ovsam_cli.evaluation.prompted_options import PromptedRequest, plan_prompted

        request = PromptedRequest(
            dataset=dataset,
            images=images,
            out=out or Path(),
            prompt=prompt,
            model=model,
            vocabulary=vocabulary,
            fusion=fusion,
            devices=devices,
            max_images=max_images,
        )
        plan = plan_prompted(request)
        if plan.vocabulary is None:
            raise InputError(f"{dataset}: has masks without names; give data with names")
        from ovsam_cli.evaluation.calibrate import calibrate_scores  # torch loads here

        with count_progress(console) as on_progress, signals.noted(""):
            report = calibrate_scores(
                plan,
                store=not dry_run,
                on_message=console.say,
                on_images=lambda done, total: on_progress("images", done, total),
                should_stop=signals.is_wanted,
            )
        content = _describe(report)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_metrics(out, content)
        console.result(_draw(report))
        console.event("finished", {**content})


def _draw(report: CalibrationReport) -> str:
    fit = report.fit
    lines = [
        f"temperature {fit.temperature:.3f}, fitted to {fit.num_instances:,} objects",
        f"expected calibration error {fit.before.error:.3f} before, {fit.after.error:.3f} after "
        "(each image by a fit without it)",
    ]
    if report.stored is not None:
        lines.append(f"stored in {report.stored}; delete that file to undo it")
    return "\n".join(lines)


def _describe(report: CalibrationReport) -> dict[str, JsonValue]:
    from ovsam_cli.evaluation.metrics_file import FORMAT, describe_calibration, list_versions

    plan, fit = report.plan, report.fit
    return {
        "format": FORMAT,
        "command": "calibrate",
        "protocol": {
            "prompt_rule": plan.rule.describe(),
            "fusion": plan.request.fusion,
            "vocabulary": None if plan.vocabulary is None else plan.vocabulary.name,
        },
        "data": {
            "name": plan.source.name,
            "sha256": plan.source.sha256,
            "num_images": report.num_images,
            "num_named": fit.num_instances,
        },
        "model": {"name": report.loaded.name, "sha256": report.loaded.weights_sha256},
        "versions": list_versions(),
        "temperature": fit.temperature,
        "fold_temperatures": [*fit.fold_temperatures],
        "before": describe_calibration(fit.before),
        "after": describe_calibration(fit.after),
    }
