"""`ovsam eval`: masks, names and detections against ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors
from ovsam_cli.cli.evaluate_calibrate import calibrate
from ovsam_cli.cli.evaluate_labels import draw_detections, grid, write_page
from ovsam_cli.cli.evaluate_options import AsJson, Quiet, Split
from ovsam_cli.cli.evaluate_prompted import prompted

eval_app = typer.Typer(
    help="Measure masks, names and detections against ground truth.", no_args_is_help=True
)
eval_app.command("prompted")(prompted)
eval_app.command("grid")(grid)
eval_app.command("calibrate")(calibrate)


@eval_app.command()
def detections(
    labels: Annotated[
        Path, typer.Argument(help="COCO file with scores of any tool, or a list of results.")
    ],
    ground_truth: Annotated[Path, typer.Argument(help="COCO or LVIS instances file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json and report.html.")
    ] = None,
    style: Annotated[
        Literal["auto", "coco", "lvis"], typer.Option(help="Whose rules; auto: the file's.")
    ] = "auto",
    split: Split = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Average precision of boxes and masks, of all names and of base and novel ones."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console):
        from ovsam_cli.evaluation.detections import evaluate_detections
        from ovsam_cli.evaluation.metrics_file import (
            describe_detections,
            plain_fields,
            write_metrics,
        )

        report = evaluate_detections(labels, ground_truth, style=style, split=split)
        content = describe_detections(report)
        for reason, count in report.found.left_out.items():
            console.say(f"{labels}: {count:,} objects {reason} left out")
        if report.num_cut:
            console.say(f"{report.num_cut:,} detections beyond {report.limits[-1]} an image cut")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_metrics(out, content)
            title = f"{labels.name} against {ground_truth.name}"
            console.say(str(write_page(out, title, {"": report})))
        console.result(draw_detections({"": report}))
        console.event("finished", {**plain_fields(content)})
