"""Charts of an evaluation as SVG, each a section of a page; no torch."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence

from ovsam_cli.evaluation.bootstrap import Estimate
from ovsam_cli.evaluation.calibration import Calibration
from ovsam_cli.evaluation.figure_tables import GROUPS, format_share
from ovsam_cli.outputs.html_page import short_number
from ovsam_cli.outputs.report_charts import Bars, draw_bars
from ovsam_cli.structures import IntArray

WIDTH, ROW_HEIGHT, NAMES_WIDTH, VALUE_WIDTH = 420, 24, 92, 54
PLOT_HEIGHT, LEFT, BOTTOM, TOP = 240, 40, 30, 10
CONFUSION_ROWS, MAX_NAME_LENGTH = 15, 20


def draw_histogram(counts: IntArray) -> str:
    """Objects by IoU of their masks."""
    num_bins = len(counts)
    edges = [number / num_bins for number in range(num_bins + 1)]
    return draw_bars(
        Bars(
            title="IoU of masks",
            note=f"{int(counts.sum()):,} objects",
            counts=counts.tolist(),
            ranges=[f"{low:.2f} to {high:.2f}" for low, high in itertools.pairwise(edges)],
            ticks=[(share * num_bins, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        )
    )


def draw_groups(title: str, metric: str, estimates: Mapping[str, Estimate]) -> str:
    """A bar with its interval for each group of objects.

    Args:
        title: above the chart.
        metric: whose groups are shown, as named by `tally.Figures.estimates`.
        estimates: all of them.
    """
    found = [(name, estimates[key]) for name in GROUPS if (key := f"{metric}|{name}") in estimates]
    room = WIDTH - NAMES_WIDTH - VALUE_WIDTH
    parts = []
    for row, (name, one) in enumerate(found):
        y = row * ROW_HEIGHT
        line = ""
        if not math.isnan(one.low):
            low, high = NAMES_WIDTH + room * one.low, NAMES_WIDTH + room * one.high
            line = (
                f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 12}" y2="{y + 12}"/>'
            )
        parts.append(
            f"<g><title>{name}: {one.num_instances:,} objects</title>"
            f'<text class="name" x="{NAMES_WIDTH - 8}" y="{y + 16}" text-anchor="end">{name}</text>'
            f'<rect class="bar" x="{NAMES_WIDTH}" y="{y + 5}" width="{room * one.mean:.1f}" '
            f'height="14" rx="2"/>{line}'
            f'<text class="name" x="{WIDTH - 4}" y="{y + 16}" text-anchor="end">'
            f"{format_share(one.mean)}</text></g>"
        )
    note = "means of all objects and of groups, with 95 % intervals"
    return draw_section(title, note, max(len(found), 1) * ROW_HEIGHT + 4, "".join(parts))


def draw_reliability(found: Calibration, title: str = "Calibration of scores") -> str:
    """Share of right names over mean score, the size of a dot by the objects in its bin."""
    side = PLOT_HEIGHT - TOP - BOTTOM
    right = LEFT + side * 1.6

    def place(score: float, share: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * score, TOP + side * (1 - share)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
            f'<text x="{x:.1f}" y="{PLOT_HEIGHT - 10}" text-anchor="middle">{tick:g}</text>'
        )
    (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
    parts.append(f'<line class="ideal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    most = max(1, int(found.counts.max()))
    columns = (found.counts.tolist(), found.mean_scores.tolist(), found.shares_right.tolist())
    for count, score, share in zip(*columns, strict=True):
        if count:
            x, y = place(score, share)
            radius = 3 + 7 * (count / most) ** 0.5
            parts.append(
                f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
                f'fill-opacity=".75"><title>{count:,} objects scored {score:.2f} on average, '
                f"{share:.2f} of them right</title></circle>"
            )
    note = (
        f"share of right names over score; expected calibration error {format_share(found.error)}. "
        "Dots on the line mean what they say"
    )
    return draw_section(title, note, PLOT_HEIGHT, "".join(parts))


def draw_confusions(confusions: Sequence[tuple[str, str, int]]) -> str:
    """The commonest wrong names as bars."""
    shown = confusions[:CONFUSION_ROWS]
    highest, names = max(count for *_, count in shown), 230
    room = WIDTH - names - VALUE_WIDTH
    parts = []
    for row, (true, said, count) in enumerate(shown):
        y = row * 20
        text = f"{shorten(true)} → {shorten(said)}"
        parts.append(
            f"<g><title>{html.escape(f'{true} was called {said}: {count:,}')}</title>"
            f'<text class="name" x="{names - 8}" y="{y + 14}" text-anchor="end">'
            f'{html.escape(text)}</text><rect class="second" x="{names}" y="{y + 4}" '
            f'width="{max(room * count / highest, 1.5):.1f}" height="12" rx="2"/>'
            f'<text x="{names + room * count / highest + 6:.1f}" y="{y + 14}">'
            f"{short_number(count)}</text></g>"
        )
    return draw_section(
        "Most confused names", "true name → name said", len(shown) * 20 + 4, "".join(parts)
    )


def shorten(name: str) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def draw_section(title: str, note: str, height: int, drawing: str) -> str:
    """A heading, an SVG of `WIDTH` x `height` with this inside, and a line below it."""
    name = html.escape(title)
    return (
        f'<section><h2>{name}</h2><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{name}">{drawing}</svg><p>{html.escape(note)}</p></section>\n'
    )
