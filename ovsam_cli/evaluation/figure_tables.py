"""Figures as rows of text, for the terminal, the page and Markdown; no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ovsam_cli.evaluation.bootstrap import Estimate
from ovsam_cli.evaluation.tally import ALL

GROUPS = (ALL, "small", "medium", "large", "base", "novel", "rare", "common", "frequent")
METRICS = {"iou": "mask IoU", "boundary_iou": "boundary IoU"}


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One mean.

    Attributes:
        metric: in words, such as `top-1 of 80 names`.
        group: `all` or a part of the objects.
        estimate: the number.
    """

    metric: str
    group: str
    estimate: Estimate


def list_rows(estimates: Mapping[str, Estimate], rank_keys: Sequence[str]) -> list[FigureRow]:
    """Rows in the order of reading: masks, then names rule by rule; each by group."""
    metrics = dict(METRICS)
    for key in rank_keys:
        metrics |= {f"top1 {key}": f"top-1 of {key}", f"top5 {key}": f"top-5 of {key}"}
    return [
        FigureRow(text, group, estimates[f"{metric}|{group}"])
        for metric, text in metrics.items()
        for group in GROUPS
        if f"{metric}|{group}" in estimates
    ]


def format_share(value: float | None) -> str:
    """Three decimals without the zero before the point; `-` where there is no number."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.3f}"


def format_percent(value: float | None) -> str:
    """One decimal, as papers have it."""
    return "-" if value is None else f"{value:.1f}"


def format_interval(estimate: Estimate) -> str:
    """`[.612, .651]`; `-` where there is none."""
    if math.isnan(estimate.low):
        return "-"
    return f"[{format_share(estimate.low)}, {format_share(estimate.high)}]"


def draw_text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other; the first two left-aligned, a repeated first cell left empty."""
    table = [[*header], *([*row] for row in rows)]
    for number in range(len(table) - 1, 1, -1):
        if table[number][0] == table[number - 1][0]:
            table[number][0] = ""
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    return "\n".join(_draw_line(line, widths) for line in table)


def _draw_line(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def draw_figures(rows: Sequence[FigureRow]) -> str:
    """The table of an evaluation for the terminal."""
    header = ("", "", "objects", "mean", "95 % interval")
    return draw_text_table(header, [*_iter_cells(rows)])


def _iter_cells(rows: Sequence[FigureRow]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        found = row.estimate
        count, mean = f"{found.num_instances:,}", format_share(found.mean)
        yield row.metric, row.group, count, mean, format_interval(found)
