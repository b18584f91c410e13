"""`ovsam eval prompted`: every object prompted by its own ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.evaluate_labels import run_boxes
from ovsam_cli.cli.evaluate_options import (
    MODEL,
    RESUME,
    RULES,
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
    Split,
)
from ovsam_cli.cli.stopping import StopSignals

if TYPE_CHECKING:
    from ovsam_cli.evaluation.prompted import PromptedReport
    from ovsam_cli.evaluation.prompted_options import PromptedRequest
    from ovsam_cli.evaluation.tally import Figures


def prompted(
    dataset: Dataset,
    out: Out,
    images: Images = None,
    prompt: Prompt = "box",
    click: Annotated[
        Literal["exact", "reference"] | None,
        typer.Option(
            help="The middle: by exact distance, or the published code's; default exact.",
            rich_help_panel=RULES,
        ),
    ] = None,
    protocol: Annotated[
        Literal["own", "paper"],
        typer.Option(
            help="paper: all switches as published, Table 1 beside ours.", rich_help_panel=RULES
        ),
    ] = "own",
    baseline: Annotated[
        Literal["none", "box-fill", "ellipse", "image-crop", "feature-crop"],
        typer.Option(help="Something simpler in the model's place.", rich_help_panel=RULES),
    ] = "none",
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Detections as prompts, scores kept: average precision by the detector's names "
            "and by ours.",
            rich_help_panel=RULES,
        ),
    ] = None,
    split: Split = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of random points.", rich_help_panel=RULES)] = 0,
    model: Model = "rn50x16",
    vocabulary: Names = None,
    text_embeddings: Annotated[
        Path | None, typer.Option(help="As of `ovsam label`.", rich_help_panel=MODEL)
    ] = None,
    base_names: Annotated[
        str | None, typer.Option(help="As of `ovsam label`.", rich_help_panel=MODEL)
    ] = None,
    fusion: Fusion = "auto",
    devices: Devices = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
    max_images: MaxImages = None,
    restart: Restart = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Mask IoU and accuracy of names, each object prompted by its ground truth."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console, how_to_resume=RESUME, seconds_to_stop=SECONDS_TO_STOP) as signals:
        from ovsam_cli.evaluation.prompted_options import PromptedRequest

        request = PromptedRequest(
            dataset=dataset,
            images=images,
            out=out,
            prompt=prompt,
            click=click,
            seed=seed,
            model=model,
            devices=devices,
            dtype=dtype,
            vocabulary=vocabulary,
            text_embeddings=text_embeddings,
            base_names=base_names,
            fusion=fusion,
            split=split,
            protocol=protocol,
            baseline=baseline,
            batch_size=batch_size,
            max_images=max_images,
            restart=restart,
            overwrite=overwrite,
        )
        if boxes is not None:
            raise typer.Exit(run_boxes(console, signals, request, boxes))
        raise typer.Exit(_run(console, signals, request))


def _run(console: Console, signals: StopSignals, request: PromptedRequest) -> int:
    from ovsam_cli.evaluation.prompted_options import plan_prompted

    plan = plan_prompted(request)
    from ovsam_cli.cli.memory import keep_freed_memory
    from ovsam_cli.cli.progress import count_progress
    from ovsam_cli.evaluation.prompted import evaluate_prompted  # torch loads here

    keep_freed_memory()
    notice = "" if console.quiet or console.as_json else STOPPING
    with count_progress(console) as on_progress, signals.noted(notice):
        report = evaluate_prompted(
            plan,
            on_message=console.say,
            on_images=lambda done, total: on_progress("images", done, total) if done else None,
            should_stop=signals.is_wanted,
        )
    return _finish(console, report)


def _finish(console: Console, report: PromptedReport) -> int:
    from ovsam_cli.evaluation.figure_tables import draw_figures, list_rows
    from ovsam_cli.evaluation.metrics_file import plain_fields, write_metrics
    from ovsam_cli.evaluation.prompted_metrics import describe_prompted, draw_published
    from ovsam_cli.evaluation.prompted_page import write_page

    content, out = describe_prompted(report), report.plan.request.out
    write_metrics(out, content)
    page = write_page(report)
    figures = report.figures
    console.result(f"prompt: {report.plan.rule.describe()}")
    if figures.num_instances:
        console.result(draw_figures(list_rows(figures.estimates, report.rank_keys)))
        published = draw_published(report)
        if published:
            console.result(f"\n{published}")
    else:
        console.result(f"no object was found in {_count_images(figures)}: nothing was measured")
    for name, message in figures.failures:
        console.say(f"{name}: {message}")
    console.say(str(page))
    console.event("finished", {**plain_fields(content)})
    if not figures.num_instances:
        return ExitCode.NOTHING_WRITTEN
    return ExitCode.SOME_FAILED if figures.failures else ExitCode.FINISHED


def _count_images(figures: Figures) -> str:
    images = "1 image" if figures.num_images == 1 else f"{figures.num_images:,} images"
    return images + (f" ({len(figures.failures):,} failed)" if figures.failures else "")
