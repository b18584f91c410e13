"""What `metrics.json` says of a prompted evaluation."""

from __future__ import annotations

from dataclasses import asdict

from ovsam_cli.evaluation.bootstrap import INTERVALS
from ovsam_cli.evaluation.figure_tables import draw_text_table
from ovsam_cli.evaluation.metrics_file import FORMAT, describe_calibration, list_versions
from ovsam_cli.evaluation.prompted import PromptedReport
from ovsam_cli.evaluation.published import SOURCE, PublishedFigures, find_published
from ovsam_cli.outputs.json_values import JsonValue


def describe_prompted(report: PromptedReport) -> dict[str, JsonValue]:
    """Everything of a prompted evaluation."""
    plan, figures = report.plan, report.figures
    estimates = {key: asdict(one) for key, one in figures.estimates.items()}
    return {
        "format": FORMAT,
        "command": "prompted",
        "protocol": describe_protocol(report),
        "data": {
            "name": plan.source.name,
            "sha256": plan.source.sha256,
            "num_images": figures.num_images,
            "num_instances": figures.num_instances,
            "num_named": figures.num_named,
            "num_failed": len(figures.failures),
        },
        "model": None if report.model is None else {**asdict(report.model)},
        "versions": list_versions(),
        "estimates": estimates,
        "iou_histogram": figures.iou_histogram.tolist(),
        "calibration": describe_calibration(figures.calibration),
        "temperature": report.temperature,
        "commonest_name": figures.majority,
        "confusions": [
            {"true": true, "said": said, "objects": count}
            for true, said, count in figures.confusions
        ],
        "published": _describe_published(find_for(report)),
        "failures": [{"file_name": name, "message": text} for name, text in figures.failures],
    }


def describe_protocol(report: PromptedReport) -> dict[str, JsonValue]:
    """The switches that decide the figures, in words where they are rules."""
    request, plan = report.plan.request, report.plan
    vocabulary = plan.vocabulary
    return {
        "name": request.protocol,
        "prompt": request.prompt,
        "prompt_rule": plan.rule.describe(),
        "baseline": request.baseline,
        "fusion": request.fusion,
        "accuracies": [*report.rank_keys],
        "vocabulary": None if vocabulary is None else vocabulary.name,
        "num_names": None if vocabulary is None else len(vocabulary),
        "vocabulary_sha256": None if vocabulary is None else vocabulary.sha256(),
        "split": plan.split.name,
        "max_images": request.max_images,
        "intervals": INTERVALS,
    }


def find_for(report: PromptedReport) -> PublishedFigures | None:
    """The paper's row, where the paper's protocol was asked for."""
    request = report.plan.request
    if request.protocol != "paper":
        return None
    baseline = "" if request.baseline == "none" else request.baseline
    return find_published(report.plan.split.name, report.plan.rule.kind, baseline)


def _describe_published(found: PublishedFigures | None) -> JsonValue:
    return None if found is None else {"source": SOURCE, **asdict(found)}


def draw_published(report: PromptedReport) -> str:
    """Table 1 of the paper beside ours, in percent; empty where it has no such row."""
    found = find_for(report)
    if found is None:
        return ""
    estimates = report.figures.estimates
    rows = [[f"{found.method}, published", "", *map(str, _published_cells(found))]]
    for key in report.rank_keys:
        means = [
            estimates[name].mean if name in estimates else None
            for name in ("iou|base", "iou|novel", f"top1 {key}|all")
        ]
        shares = ["-" if mean is None else f"{100 * mean:.1f}" for mean in means]
        rows.append([f"measured, {key}", "", *shares])
    header = ["%", "", "IoU base", "IoU novel", "accuracy"]
    return draw_text_table(header, rows)


def _published_cells(found: PublishedFigures) -> tuple[float, float, float]:
    return found.base_iou, found.novel_iou, found.accuracy
