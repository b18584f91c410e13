"""`ovsam eval grid`, and `prompted --boxes`: runs of `ovsam label` that are compared with truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.evaluate_options import (
    RESUME,
    SECONDS_TO_STOP,
    AsJson,
    Dataset,
    Devices,
    Dtype,
    Images,
    MaxImages,
    Model,
    Names,
    Overwrite,
    Quiet,
    Restart,
    Split,
)
from ovsam_cli.cli.stopping import StopSignals

if TYPE_CHECKING:
    from ovsam_cli.evaluation.boxes_tables import ComparisonTable
    from ovsam_cli.evaluation.detections import DetectionReport
    from ovsam_cli.evaluation.detector_boxes import BoxesPlan
    from ovsam_cli.evaluation.grid_recall import GridReport
    from ovsam_cli.evaluation.prompted_options import PromptedRequest
    from ovsam_cli.labelling.options import LabelRequest
    from ovsam_cli.outputs.json_values import JsonValue


def grid(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json, and the labels in it.")],
    images: Images = None,
    points: Annotated[
        int, typer.Option("--grid", min=1, max=256, help="Points a side of the grid.")
    ] = 32,
    crop_layers: Annotated[
        int, typer.Option(min=0, max=3, help="Also look at crops, 2^layer a side.")
    ] = 0,
    nms_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Masks that overlap more are one.")
    ] = 0.7,
    model: Model = "rn50x16",
    vocabulary: Names = None,
    split: Split = "auto",
    devices: Devices = "auto",
    dtype: Dtype = "auto",
    max_images: MaxImages = None,
    restart: Restart = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Average recall of the automatic mode's masks, and average precision with names."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console, how_to_resume=RESUME, seconds_to_stop=SECONDS_TO_STOP) as signals:
        from ovsam_cli.evaluation.grid_recall import GridRequest, compare_grid, plan_grid
        from ovsam_cli.evaluation.metrics_file import plain_fields, write_metrics
        from ovsam_cli.labelling.options import GridOptions

        plan = plan_grid(
            GridRequest(
                dataset=dataset,
                images=images,
                out=out,
                model=model,
                devices=devices,
                dtype=dtype,
                vocabulary=vocabulary,
                grid=GridOptions(points, crop_layers, nms_iou),
                split=split,
                max_images=max_images,
                restart=restart,
                overwrite=overwrite,
            )
        )
        code, annotations = _label(console, signals, plan.label)
        report = compare_grid(plan, annotations)
        content = _describe_grid(report)
        write_metrics(out, content)
        run = {"run": describe_run(plan.label)}
        title = f"{Path(dataset).name}: automatic mode"
        page = write_page(out, title, {"": report.named}, recall=report.recall, more=run)
        console.result(_draw_recall(report))
        console.result(draw_detections({"": report.named}))
        console.say(str(page))
        console.event("finished", {**plain_fields(content)})
        raise typer.Exit(code)


def run_boxes(console: Console, signals: StopSignals, request: PromptedRequest, boxes: Path) -> int:
    """`ovsam eval prompted --boxes`; the exit code."""
    from ovsam_cli.evaluation.boxes_tables import compare_published
    from ovsam_cli.evaluation.detector_boxes import compare_boxes, plan_boxes, write_prompts
    from ovsam_cli.evaluation.metrics_file import plain_fields, write_metrics

    plan = plan_boxes(request, boxes)
    for reason, count in plan.boxes.left_out.items():
        console.say(f"{boxes}: {count:,} boxes {reason} left out")
    write_prompts(plan)
    code, annotations = _label(console, signals, plan.label)
    report = compare_boxes(plan, annotations)
    parts = {"detector's names": report.detector_names, "own names": report.own_names}
    tables = compare_published(report.detector_names, report.own_names)
    content = _describe_boxes(plan, parts, tables)
    write_metrics(request.out, content)
    run = {"run": content["run"]}
    title = f"{Path(request.dataset).name}: boxes of {boxes.name}"
    page = write_page(request.out, title, parts, published=tables, more=run)
    console.result(draw_detections(parts))
    for table in tables:
        console.result(_draw_published(table))
    console.say(str(page))
    console.event("finished", {**plain_fields(content)})
    return code


def _describe_boxes(
    plan: BoxesPlan, parts: Mapping[str, DetectionReport], tables: Sequence[ComparisonTable]
) -> dict[str, JsonValue]:
    from ovsam_cli.evaluation.boxes_tables import describe_tables
    from ovsam_cli.evaluation.metrics_file import (
        FORMAT,
        describe_found,
        describe_precision,
        describe_truth,
        list_versions,
    )

    return {
        "format": FORMAT,
        "command": "prompted --boxes",
        "boxes": {"name": plan.boxes.path.name, "sha256": plan.boxes.sha256},
        "run": describe_run(plan.label),
        "data": describe_truth(plan.truth),
        "versions": list_versions(),
        "detections": {name: describe_found(part) for name, part in parts.items()},
        "figures": {name: describe_precision(part) for name, part in parts.items()},
        "published": describe_tables(tables),
    }


def draw_detections(reports: Mapping[str, DetectionReport]) -> str:
    """Tables of average precision side by side, each with a heading."""
    from ovsam_cli.evaluation.figure_tables import draw_text_table, format_share
    from ovsam_cli.evaluation.precision_page import list_columns

    columns = list_columns(reports)
    first = next(iter(reports.values()))
    rows = [
        [name, "", *(format_share(part.figures[name]) for _, part in columns)]
        for name in columns[0][1].figures
    ]
    return draw_text_table([f"{first.style} style", "", *(head for head, _ in columns)], rows)


def write_page(
    out: Path,
    title: str,
    reports: Mapping[str, DetectionReport],
    *,
    recall: Mapping[str, float | None] | None = None,
    published: Sequence[ComparisonTable] = (),
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write report.html of average precision; its path."""
    from ovsam_cli.evaluation.precision_page import (
        PrecisionPage,
        list_facts,
        write_precision_page,
    )

    report = next(iter(reports.values()))
    inner = report.truth.truth
    page = PrecisionPage(
        title=title,
        about=f"{len(inner.images):,} images, {len(inner.objects):,} objects, "
        f"{len(report.found.objects):,} detections",
        reports=reports,
        facts={**list_facts(report), **(more or {})},
        recall=recall or {},
        published=published,
    )
    return write_precision_page(out, page)


def _draw_published(table: ComparisonTable) -> str:
    from ovsam_cli.evaluation.figure_tables import draw_text_table, format_percent

    rows = [[method, "", *map(format_percent, shares)] for method, shares in table.rows]
    return f"\n{table.source}\n" + draw_text_table(["%", "", *table.figures], rows)


def describe_run(request: LabelRequest) -> dict[str, JsonValue]:
    """What `ovsam label` wrote of itself: weights, options, device."""
    import json

    try:
        content = json.loads((request.out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kept = ("weights", "vocabulary", "options", "device", "dtype")
    found = {key: content[key] for key in kept if key in content}
    if isinstance(found.get("weights"), dict):
        found["weights"].pop("sources", None)  # paths of this machine
    return found


def _label(console: Console, signals: StopSignals, request: LabelRequest) -> tuple[int, Path]:
    """Label, or go on; nothing found is a figure too. The exit code, and the annotations."""
    from ovsam_cli.cli.label_run import run_label

    inner = Console(quiet=console.quiet or console.as_json, verbose=console.verbose)
    code = run_label(inner, signals, request, strict=False)
    annotations = request.out / "annotations.json"
    return (ExitCode.FINISHED if code == ExitCode.NOTHING_WRITTEN else code), annotations


def _draw_recall(report: GridReport) -> str:
    from ovsam_cli.evaluation.figure_tables import draw_text_table, format_share

    rows = [[name, "", format_share(value)] for name, value in report.recall.items()]
    head = f"{report.num_masks:,} masks in {report.plan.num_images:,} images"
    return draw_text_table([head, "", "any name"], rows)


def _describe_grid(report: GridReport) -> dict[str, JsonValue]:
    from ovsam_cli.evaluation.metrics_file import (
        FORMAT,
        describe_found,
        describe_precision,
        describe_truth,
        list_versions,
    )

    return {
        "format": FORMAT,
        "command": "grid",
        "run": describe_run(report.plan.label),
        "data": describe_truth(report.plan.truth),
        "detections": describe_found(report.named),
        "versions": list_versions(),
        "recall": {**report.recall},
        "figures": describe_precision(report.named),
    }
