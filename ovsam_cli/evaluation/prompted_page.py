"""`report.html` of a prompted evaluation: one file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ovsam_cli.errors import ImageError
from ovsam_cli.evaluation.bootstrap import INTERVALS
from ovsam_cli.evaluation.figure_charts import (
    draw_confusions,
    draw_groups,
    draw_histogram,
    draw_reliability,
)
from ovsam_cli.evaluation.figure_tables import format_interval, format_share, list_rows
from ovsam_cli.evaluation.page_parts import render_facts, render_failures, write_html
from ovsam_cli.evaluation.prompted import PromptedReport
from ovsam_cli.evaluation.prompted_metrics import describe_protocol, find_for
from ovsam_cli.evaluation.published import SOURCE
from ovsam_cli.evaluation.tally import WorstCase
from ovsam_cli.images import read_image
from ovsam_cli.outputs.pair_pictures import draw_pair


def write_page(report: PromptedReport) -> Path:
    """Write the page into the evaluation's folder; its path.

    Raises:
        OutputError: it cannot be written.
    """
    request, figures = report.plan.request, report.figures
    name = report.model.name if report.model else request.baseline
    title = f"{report.plan.source.name}: {name}"
    about = (
        f"{figures.num_images:,} images, {figures.num_instances:,} objects; prompt: "
        f"{report.plan.rule.describe()}"
    )
    body = [
        f"<main><header><h1>{html.escape(title)}</h1><p>{html.escape(about)}</p></header>",
        f'<div class="charts">{"".join(_iter_charts(report))}</div>',
        _render_published(report),
        _render_table(report),
        _render_worst(report),
        render_failures(figures.failures),
        _render_protocol(report),
        "</main>",
    ]
    return write_html(request.out, title, "\n".join(body))


def _iter_charts(report: PromptedReport) -> Iterator[str]:
    figures, estimates = report.figures, report.figures.estimates
    yield draw_histogram(figures.iou_histogram)
    yield draw_groups("Mask IoU by area and names", "iou", estimates)
    if report.rank_keys:
        key = report.rank_keys[0]
        yield draw_groups(f"Top-1 of {key}", f"top1 {key}", estimates)
    if figures.calibration is not None:
        yield draw_reliability(figures.calibration)
    if figures.confusions:
        yield draw_confusions(figures.confusions)


def _render_published(report: PromptedReport) -> str:
    found = find_for(report)
    if found is None:
        return ""
    ours = [
        [report.figures.estimates.get(f"{metric}|{group}") for metric, group in wanted]
        for key in report.rank_keys
        for wanted in [(("iou", "base"), ("iou", "novel"), (f"top1 {key}", "all"))]
    ]
    rows = [
        f"<tr><td>{html.escape(found.method)}</td><td>published</td><td>{found.base_iou}</td>"
        f"<td>{found.novel_iou}</td><td>{found.accuracy}</td></tr>"
    ]
    for key, cells in zip(report.rank_keys, ours, strict=True):
        shares = ["-" if one is None else f"{100 * one.mean:.1f}" for one in cells]
        line = "".join(f"<td>{one}</td>" for one in shares)
        rows.append(f"<tr><td>measured here</td><td>{html.escape(key)}</td>{line}</tr>")
    head = (
        "<tr><th></th><th></th><th>IoU base, %</th><th>IoU novel, %</th><th>accuracy, %</th></tr>"
    )
    return (
        f'<section><h2>Beside the paper</h2><div class="wide"><table>{head}{"".join(rows)}</table>'
        f"</div><p>{html.escape(SOURCE)}</p></section>"
    )


def _render_table(report: PromptedReport) -> str:
    lines = []
    last = ""
    for row in list_rows(report.figures.estimates, report.rank_keys):
        found = row.estimate
        metric = "" if row.metric == last else html.escape(row.metric)
        last = row.metric
        kind = ' class="all"' if row.group == "all" else ""
        lines.append(
            f"<tr{kind}><td>{metric}</td><td>{row.group}</td><td>{found.num_instances:,}</td>"
            f"<td>{format_share(found.mean)}</td><td>{format_interval(found)}</td></tr>"
        )
    head = "<tr><th></th><th></th><th>objects</th><th>mean</th><th>95 % interval</th></tr>"
    return (
        f'<section><h2>Figures</h2><div class="wide"><table>{head}{"".join(lines)}</table></div>'
        f"<p>Intervals: {html.escape(INTERVALS)}.</p></section>"
    )


def _render_worst(report: PromptedReport) -> str:
    """The worst masks as pictures; images that are gone by now leave theirs out."""
    cases = report.figures.worst
    truth = _find_truth(report, cases)
    names = report.plan.source.category_names
    said = () if report.plan.vocabulary is None else report.plan.vocabulary.names
    figures = [_render_case(case, truth.get(_key(case)), names, said) for case in cases]
    return (
        f"<section><h2>The {len(cases)} worst masks</h2><p>Left the ground truth, right the "
        f'answer; worst first.</p><div class="cases">{"".join(figures)}</div></section>'
    )


def _key(case: WorstCase) -> tuple[str, int]:
    return case.row.record.file_name, case.instance.annotation_id


def _find_truth(
    report: PromptedReport, cases: Sequence[WorstCase]
) -> dict[tuple[str, int], tuple[str, str]]:
    """Both pictures of each case, image by image."""
    source = report.plan.source
    places = {one.file_name: row for row, one in enumerate(source.records)}
    wanted: dict[str, list[WorstCase]] = {}
    for case in cases:
        wanted.setdefault(case.row.record.file_name, []).append(case)
    found = {}
    for name, group in wanted.items():
        try:
            image = source.load(places[name])
            rgb = read_image(Path(image.path)).rgb
        except ImageError:
            continue
        if rgb.shape[:2] != image.original_hw:
            continue
        masks = {one.annotation_id: one.segmentation for one in image.instances}
        for case in group:
            number = case.instance.annotation_id
            pair = draw_pair(rgb, masks[number], case.instance.segmentation)
            found[name, number] = pair.truth, pair.found
    return found


def _render_case(
    case: WorstCase,
    pictures: tuple[str, str] | None,
    names: Mapping[int, str],
    said: Sequence[str],
) -> str:
    one, record = case.instance, case.row.record
    name = names.get(one.category_id, "object")
    verdict = ""
    if one.said_row is not None:
        is_right = bool(one.ranks) and one.ranks[0] == 0
        verdict = f", {'right' if is_right else 'said ' + said[one.said_row]} ({one.score:.2f})"
    shown = "<p>The image is not there any more.</p>"
    if pictures is not None:
        shown = "<div>" + "".join(
            f'<img alt="{html.escape(text)}" src="data:image/jpeg;base64,{data}">'
            for text, data in zip((f"true mask of {name}", "answer"), pictures, strict=True)
        )
        shown += "</div>"
    caption = f"<b>{html.escape(name)}</b> IoU {one.iou:.2f}{html.escape(verdict)}"
    return (
        f"<figure>{shown}<figcaption>{caption}<span>{html.escape(record.file_name)}, annotation "
        f"{one.annotation_id}</span></figcaption></figure>"
    )


def _render_protocol(report: PromptedReport) -> str:
    facts = {key.replace("_", " "): value for key, value in describe_protocol(report).items()}
    facts |= {"data": f"{report.plan.source.name}, SHA-256 {report.plan.source.sha256}"}
    if report.model is not None:
        facts |= {
            "weights": f"{', '.join(report.model.files)}, SHA-256 {report.model.sha256}",
            "device": f"{report.model.device}, {report.model.dtype}",
            "notice": report.model.notice,
        }
    return render_facts("Protocol", facts)
