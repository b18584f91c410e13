"""`report.html` of average precision, for detections, grid and a detector's boxes; no torch."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ovsam_cli.evaluation.boxes_tables import ComparisonTable
from ovsam_cli.evaluation.detections import DetectionReport, PrecisionFigures
from ovsam_cli.evaluation.figure_tables import format_percent, format_share
from ovsam_cli.evaluation.metrics_file import list_versions
from ovsam_cli.evaluation.page_parts import render_facts, render_table, write_html
from ovsam_cli.evaluation.precision_charts import draw_curves, draw_shares, draw_spread

KINDS = {"bbox": "boxes", "segm": "masks"}
NUM_WORST = 15
PARTS = {
    "AP": "all",
    "APs": "small",
    "APm": "medium",
    "APl": "large",
    "AP base": "base names",
    "AP novel": "novel names",
    "APr": "rare names",
    "APc": "common names",
    "APf": "frequent names",
}


@dataclass(frozen=True, slots=True)
class PrecisionPage:
    """What a page shows.

    Attributes:
        title, about: heading, and the line below it.
        reports: by what names they are of; one with an empty name stands alone.
        facts: protocol, data and versions, by name.
        recall: of masks whatever their names, by `AR@limit`; empty where it was not measured.
        published: tables of the paper beside ours.
    """

    title: str
    about: str
    reports: Mapping[str, DetectionReport]
    facts: Mapping[str, object]
    recall: Mapping[str, float | None] = field(default_factory=dict)
    published: Sequence[ComparisonTable] = ()


def write_precision_page(out: Path, page: PrecisionPage) -> Path:
    """Write the page into a folder that is there; its path.

    Raises:
        OutputError: it cannot be written.
    """
    head = f"<h1>{html.escape(page.title)}</h1><p>{html.escape(page.about)}</p>"
    body = [
        f"<main><header>{head}</header>",
        _render_recall(page.recall),
        *(_render_charts(name, report) for name, report in page.reports.items()),
        *(_render_published(table) for table in page.published),
        _render_figures(page.reports),
        *(_render_names(name, report) for name, report in page.reports.items()),
        render_facts("Protocol", page.facts),
        "</main>",
    ]
    return write_html(out, page.title, "\n".join(body))


def list_facts(report: DetectionReport) -> dict[str, object]:
    """What the figures depend on, for `PrecisionPage.facts`."""
    truth, found = report.truth, report.found
    limit = report.limits[-1]
    over = "over all names" if report.style == "lvis" else "and name"
    return {
        "rules": f"{report.style.upper()}'s, at most {limit} objects an image {over}",
        "split": report.split_name,
        "ground truth": f"{truth.path.name}, SHA-256 {truth.sha256}",
        "detections": f"{found.path.name}, SHA-256 {found.sha256}",
        "left out": {**found.left_out},
        "beyond the limit": report.num_cut or None,
        "versions": list_versions(),
    }


def list_columns(
    reports: Mapping[str, DetectionReport],
) -> list[tuple[str, PrecisionFigures]]:
    """(heading, figures) of boxes and masks of all reports, as tables have them side by side."""
    return [
        (f"{KINDS[part.kind]} {name and f'({name})'}".strip(), part)
        for name, report in reports.items()
        for part in report.parts
    ]


def _render_recall(recall: Mapping[str, float | None]) -> str:
    if not recall:
        return ""
    note = "average recall over IoU .50 to .95; s, m, l: small, medium, large objects"
    chart = draw_shares("Masks found, whatever their names", note, [*recall.items()])
    return f'<div class="charts">{chart}</div>'


def _render_charts(name: str, report: DetectionReport) -> str:
    """Of masks, or of boxes where there are no masks."""
    part = report.parts[-1]
    of = KINDS[part.kind] + (f", {name}" if name else "")
    return f'<div class="charts pairs">{"".join(_iter_charts(of, part))}</div>'


def _iter_charts(of: str, part: PrecisionFigures) -> Iterator[str]:
    shares = [(text, part.figures[key]) for key, text in PARTS.items() if key in part.figures]
    yield draw_shares(
        f"Average precision of {of}", "over IoU .50 to .95, by area and names", shares
    )
    yield draw_curves(f"Precision and recall of {of}", part.curves)
    if part.by_category:
        yield draw_spread(f"Names by average precision of {of}", part.by_category)
        worst = sorted(part.by_category.items(), key=lambda one: one[1])[:NUM_WORST]
        yield draw_shares(f"Worst names: {of}", "average precision", worst)


def _render_published(table: ComparisonTable) -> str:
    rows = [[method, "", *map(format_percent, shares)] for method, shares in table.rows]
    head = ["%", "", *table.figures]
    return (
        f"<section><h2>Beside the paper</h2>{render_table(head, rows)}"
        f"<p>{html.escape(table.source)}</p></section>"
    )


def _render_figures(reports: Mapping[str, DetectionReport]) -> str:
    columns = list_columns(reports)
    first = columns[0][1]
    rows = [
        [name, "", *(format_share(part.figures[name]) for _, part in columns)]
        for name in first.figures
    ]
    head = ["", "", *(heading for heading, _ in columns)]
    return f"<section><h2>Figures</h2>{render_table(head, rows)}</section>"


def _render_names(name: str, report: DetectionReport) -> str:
    """Every name with its average precision, folded."""
    parts = report.parts
    names = sorted(parts[-1].by_category, key=parts[-1].by_category.__getitem__, reverse=True)
    rows = [
        [one, "", *(format_share(part.by_category.get(one)) for part in parts)] for one in names
    ]
    title = html.escape(f"Average precision of each name{f' ({name})' if name else ''}")
    table = render_table(["", "", *(KINDS[part.kind] for part in parts)], rows)
    return f"<section><details><summary>{title}</summary>{table}</details></section>"
