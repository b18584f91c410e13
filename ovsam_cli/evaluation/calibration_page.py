"""What a calibration leaves behind: `metrics.json`, and `report.html` with both reliabilities."""

from __future__ import annotations

import html
from dataclasses import asdict
from pathlib import Path

from ovsam_cli.evaluation.calibrate import CalibrationReport
from ovsam_cli.evaluation.figure_charts import draw_reliability
from ovsam_cli.evaluation.figure_tables import format_share
from ovsam_cli.evaluation.metrics_file import FORMAT, describe_calibration, list_versions
from ovsam_cli.evaluation.page_parts import render_facts, render_failures, render_table, write_html
from ovsam_cli.outputs.json_values import JsonValue


def describe_fit(report: CalibrationReport) -> dict[str, JsonValue]:
    """Everything of a calibration."""
    plan, fit = report.plan, report.fit
    return {
        "format": FORMAT,
        "command": "calibrate",
        "protocol": {
            "prompt": plan.request.prompt,
            "prompt_rule": plan.rule.describe(),
            "fusion": plan.request.fusion,
            "vocabulary": None if plan.vocabulary is None else plan.vocabulary.name,
        },
        "data": {
            "name": plan.source.name,
            "sha256": plan.source.sha256,
            "num_images": report.num_images,
            "num_named": fit.num_instances,
            "num_failed": len(report.failures),
        },
        "model": {**asdict(report.model)},
        "versions": list_versions(),
        "temperature": fit.temperature,
        "fold_temperatures": [*fit.fold_temperatures],
        "before": describe_calibration(fit.before),
        "after": describe_calibration(fit.after),
    }


def write_calibration_page(report: CalibrationReport) -> Path:
    """Write the page into the calibration's folder; its path.

    Raises:
        OutputError: it cannot be written.
    """
    plan, fit, model = report.plan, report.fit, report.model
    title = f"{plan.source.name}: calibration of {model.name}"
    about = (
        f"{report.num_images:,} images, {fit.num_instances:,} objects whose name competes; prompt: "
        f"{plan.rule.describe()}"
    )
    folds = ", ".join(f"{one:.3f}" for one in fit.fold_temperatures)
    rows = [
        ["temperature 1", "", "", format_share(fit.before.error)],
        ["fitted", "to all images", f"{fit.temperature:.3f}", ""],
        ["cross-fitted", "each image by a fit without it", folds, format_share(fit.after.error)],
    ]
    vocabulary = plan.vocabulary
    facts = {
        "names": None if vocabulary is None else f"{vocabulary.name}, {len(vocabulary)}",
        "branches": plan.request.fusion,
        "data": f"{plan.source.name}, SHA-256 {plan.source.sha256}",
        "weights": f"{', '.join(model.files)}, SHA-256 {model.sha256}",
        "device": f"{model.device}, {model.dtype}",
        "stored": "no" if report.stored is None else report.stored.name,
    }
    charts = draw_reliability(fit.before, "Before: temperature 1")
    charts += draw_reliability(fit.after, "After: cross-fitted temperatures")
    body = [
        f"<main><header><h1>{html.escape(title)}</h1><p>{html.escape(about)}</p></header>",
        f'<div class="charts">{charts}</div><section><h2>Temperature</h2>',
        render_table(["", "", "temperature", "calibration error"], rows),
        "<p>Class logits are divided by the temperature: names stay, scores change.</p></section>",
        render_failures(report.failures),
        render_facts("Protocol", facts),
        "</main>",
    ]
    return write_html(plan.request.out, title, "\n".join(body))
