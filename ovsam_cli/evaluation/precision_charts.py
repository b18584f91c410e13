"""Charts of average precision as SVG, each a section of a page; no torch."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence

from ovsam_cli.evaluation.figure_charts import (
    BOTTOM,
    LEFT,
    PLOT_HEIGHT,
    ROW_HEIGHT,
    TOP,
    VALUE_WIDTH,
    WIDTH,
    draw_section,
    shorten,
)
from ovsam_cli.evaluation.figure_tables import format_share
from ovsam_cli.outputs.report_charts import Bars, draw_bars

NAMES_WIDTH = 150
LEGEND_HEIGHT = 20
NUM_BINS = 20


def draw_curves(title: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Precision over recall, a line for each curve.

    Args:
        title: above the chart.
        curves: precision at recalls of 0 to 1 in equal steps, by name; at most three.
    """
    bottom, right = PLOT_HEIGHT - BOTTOM, WIDTH - 10
    side = bottom - TOP
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = LEFT + (right - LEFT) * tick, bottom - side * tick
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
            f'<text x="{x:.1f}" y="{PLOT_HEIGHT - 10}" text-anchor="middle">{tick:g}</text>'
        )
    for number, (name, values) in enumerate(curves.items()):
        if values:
            step = (right - LEFT) / max(len(values) - 1, 1)
            points = " ".join(
                f"{LEFT + step * place:.1f},{bottom - side * one:.1f}"
                for place, one in enumerate(values)
            )
            parts.append(f'<polyline class="line c{number}" points="{points}"/>')
        x = LEFT + number * (right - LEFT) / len(curves)
        y = PLOT_HEIGHT + LEGEND_HEIGHT - 8
        parts.append(
            f'<g class="c{number}"><line class="line" x1="{x:.1f}" x2="{x + 16:.1f}" '
            f'y1="{y - 4}" y2="{y - 4}"/><text class="key" x="{x + 21:.1f}" y="{y}">'
            f"{html.escape(name)}</text></g>"
        )
    note = "precision over recall, mean over names; the area below a line is its AP"
    return draw_section(title, note, PLOT_HEIGHT + LEGEND_HEIGHT, "".join(parts))


def draw_shares(title: str, note: str, shares: Sequence[tuple[str, float | None]]) -> str:
    """A bar from 0 to 1 for each share; none where there are no objects.

    Args:
        title, note: above the chart and below it.
        shares: (name, share or None), from top to bottom.
    """
    room = WIDTH - NAMES_WIDTH - VALUE_WIDTH
    parts = []
    for row, (name, share) in enumerate(shares):
        y = row * ROW_HEIGHT
        bar = ""
        if share is not None:
            bar = (
                f'<rect class="bar" x="{NAMES_WIDTH}" y="{y + 5}" width="{room * share:.1f}" '
                'height="14" rx="2"/>'
            )
        parts.append(
            f"<g><title>{html.escape(name)}: {format_share(share)}</title>"
            f'<text class="name" x="{NAMES_WIDTH - 8}" y="{y + 16}" text-anchor="end">'
            f"{html.escape(shorten(name))}</text>{bar}"
            f'<text class="name" x="{WIDTH - 4}" y="{y + 16}" text-anchor="end">'
            f"{format_share(share)}</text></g>"
        )
    return draw_section(title, note, max(len(shares), 1) * ROW_HEIGHT + 4, "".join(parts))


def draw_spread(title: str, by_category: Mapping[str, float]) -> str:
    """Names by their average precision."""
    counts = [0] * NUM_BINS
    for share in by_category.values():
        counts[min(int(share * NUM_BINS), NUM_BINS - 1)] += 1
    edges = [number / NUM_BINS for number in range(NUM_BINS + 1)]
    return draw_bars(
        Bars(
            title=title,
            note=f"{len(by_category):,} names that have objects",
            counts=counts,
            ranges=[f"AP {low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)],
            ticks=[(share * NUM_BINS, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        )
    )
