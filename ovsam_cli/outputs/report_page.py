"""The parts of a report as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import chain, pairwise

from ovsam_cli.outputs.html_page import iter_page
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.report_charts import Bars, draw_bars, draw_categories
from ovsam_cli.outputs.report_gallery import Gallery, iter_gallery
from ovsam_cli.outputs.report_sample import (
    AREA_EDGES,
    MAX_FAILURES,
    NUM_BINS,
    UNCERTAIN_MARGIN,
    RunStatistics,
)
from ovsam_cli.structures import IntArray


def iter_report(
    statistics: RunStatistics,
    gallery: Gallery,
    names: Mapping[int, str],
    record: Mapping[str, JsonValue],
) -> Iterator[str]:
    """The whole page, in pieces.

    Args:
        statistics: of all results.
        gallery: objects with their pictures, in the order they are first shown in.
        names: category names by category_id.
        record: of the run, as in `run.json`.
    """
    folder = files("ovsam_cli.outputs") / "report_files"
    head = [
        "<header><h1>Labelling report</h1>",
        f"<p>{html.escape(_describe_run(record))}</p></header>\n<main>",
        _render_figures(statistics),
        f'<div class="charts">{_draw_charts(statistics, names)}</div>',
        _render_failures(statistics),
        "",
    ]
    tail = [
        "",
        f"<details><summary>Run record</summary>{_render_record(record)}</details>",
        "</main>",
    ]
    gallery_pieces = iter_gallery(statistics, gallery, names)
    return iter_page(
        "Labelling report",
        chain(["\n".join(head)], gallery_pieces, ["\n".join(tail)]),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8") if gallery else "",
    )


def _describe_run(record: Mapping[str, JsonValue]) -> str:
    """Model, vocabulary, device and time in one line, as far as they are there."""
    weights, vocabulary = record.get("weights"), record.get("vocabulary")
    texts = []
    if isinstance(weights, Mapping):
        texts.append(f"model {weights.get('name')}")
    if isinstance(vocabulary, Mapping):
        texts.append(f"vocabulary {vocabulary.get('name')}")
    texts += [f"{key} {record[key]}" for key in ("device", "finished") if key in record]
    return ", ".join(texts)


def _render_figures(statistics: RunStatistics) -> str:
    images, objects = statistics.num_images, statistics.num_objects
    figures = [
        ("images", f"{images:,}", ""),
        ("objects", f"{objects:,}", f"{objects / images:.1f} an image" if images else ""),
        ("names given", f"{len(statistics.categories):,}", ""),
        (
            "uncertain names",
            f"{statistics.num_uncertain:,}",
            f"{statistics.num_uncertain / objects:.0%} of all, margin below {UNCERTAIN_MARGIN:g}"
            if objects
            else "",
        ),
        ("images without objects", f"{statistics.statuses['empty']:,}", ""),
        ("images failed", f"{statistics.statuses['failed']:,}", ""),
    ]
    cells = [
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{note}</small>' if note else ''}</dd></div>"
        for name, value, note in figures
    ]
    return f'<dl class="figures">{"".join(cells)}</dl>'


def _draw_charts(statistics: RunStatistics, names: Mapping[int, str]) -> str:
    counts = [(names.get(key, str(key)), count) for key, count in statistics.categories.items()]
    counts.sort(key=lambda pair: (-pair[1], pair[0]))
    shares = [f"{100 * edge:.3g} %" for edge in AREA_EDGES]
    charts = [
        draw_categories(counts, len(names)),
        _draw_unit("Score", "Probability of the name given", statistics.scores),
        _draw_unit("Margin", "Best name minus second best: low is uncertain", statistics.margins),
        _draw_unit(
            "Mask stability", "1: the same mask if cut higher or lower", statistics.stability
        ),
        draw_bars(
            Bars(
                "Area",
                "Share of the image that an object covers",
                statistics.area_shares.tolist(),
                [f"{low} to {high}" for low, high in pairwise(shares)],
                [(place, shares[place].replace(" ", "")) for place in range(0, len(shares), 4)],
            )
        ),
    ]
    return "".join(charts)


def _draw_unit(title: str, note: str, counts: IntArray) -> str:
    """A histogram of values from 0 to 1."""
    edges = [place / NUM_BINS for place in range(NUM_BINS + 1)]
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    ticks = [(place, f"{place / NUM_BINS:g}") for place in range(0, NUM_BINS + 1, NUM_BINS // 5)]
    return draw_bars(Bars(title, note, counts.tolist(), ranges, ticks))


def _render_failures(statistics: RunStatistics) -> str:
    num_failed = statistics.statuses["failed"]
    notices = f"{statistics.num_notices:,} notices about images and prompts are in errors.jsonl."
    notice = f"<p>{notices}</p>" if statistics.num_notices else ""
    if not num_failed:
        return f"<section><h2>Failures</h2><p>No image failed.</p>{notice}</section>"
    reasons = sorted(statistics.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    summary = ", ".join(f"{html.escape(reason)} {count:,}" for reason, count in reasons)
    rows = [
        f"<tr><td>{html.escape(one.file_name)}</td><td>{html.escape(one.reason)}</td>"
        f"<td>{html.escape(one.message)}</td></tr>"
        for one in statistics.failures
    ]
    more = ""
    if num_failed > len(rows):
        more = f"<p>The first {MAX_FAILURES} of {num_failed:,}; errors.jsonl has them all.</p>"
    return (
        f"<section><h2>Failures</h2><p>Images that failed, {num_failed:,}: {summary}</p>{notice}"
        '<div class="scroll" tabindex="0" role="region" aria-label="Failed images"><table>'
        "<thead><tr><th>image</th><th>reason</th><th>message</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}</section>"
    )


def _render_record(record: Mapping[str, JsonValue]) -> str:
    """Every value of the record in a row of its own, groups joined by dots."""
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(text)}</td></tr>"
        for key, text in _flatten(record, "")
    )
    return f'<div class="scroll"><table class="record">{rows}</table></div>'


def _flatten(record: Mapping[str, JsonValue], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((f"{prefix}{key}", ", ".join(str(one) for one in value) or "none"))
        else:
            rows.append((f"{prefix}{key}", "none" if value is None else str(value)))
    return rows
