"""The charts of a report, each an SVG of its own that can be read at the width of a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ovsam_cli.outputs.html_page import nice_ticks, short_number

WIDTH, HEIGHT = 420, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 26
NAMES_WIDTH, ROW_HEIGHT, COUNT_WIDTH = 140, 19, 48
MAX_NAME_LENGTH = 20
MAX_CATEGORIES = 23


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts side by side.

    Attributes:
        title, note: above the chart and below it.
        counts: of the N bars.
        ranges: (N,) what each bar counts, in words.
        ticks: (place, text) below the axis; place counts bars from the left edge, 0 to N.
    """

    title: str
    note: str
    counts: Sequence[int]
    ranges: Sequence[str]
    ticks: Sequence[tuple[float, str]]


def draw_bars(bars: Bars) -> str:
    """A section with a histogram; every bar says what it counts when pointed at."""
    highest = max([1, *bars.counts])
    step = (WIDTH - LEFT - RIGHT) / max(len(bars.counts), 1)
    full = HEIGHT - TOP - BOTTOM
    parts = []
    for value in nice_ticks(0, highest, 4):
        if value != int(value):
            continue
        y = HEIGHT - BOTTOM - full * value / highest
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>'
        )
    for place, (count, meaning) in enumerate(zip(bars.counts, bars.ranges, strict=True)):
        # A single object among thousands must still be seen.
        height = max(full * count / highest, 1.5 if count else 0)
        parts.append(
            f'<rect class="bar" x="{LEFT + place * step + 0.75:.1f}" width="{step - 1.5:.1f}" '
            f'y="{HEIGHT - BOTTOM - height:.1f}" height="{height:.1f}">'
            f"<title>{html.escape(meaning)}: {count:,}</title></rect>"
        )
    for at, text in bars.ticks:
        anchor = "end" if at == len(bars.counts) and len(text) > 3 else "middle"
        parts.append(
            f'<text x="{LEFT + at * step:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )
    return _section(bars.title, bars.note, f"0 0 {WIDTH} {HEIGHT}", "".join(parts))


def draw_categories(counts: Sequence[tuple[str, int]], num_names: int) -> str:
    """A section with the commonest names as horizontal bars.

    Args:
        counts: names with their objects, the commonest first.
        num_names: of the vocabulary.
    """
    shown = counts[:MAX_CATEGORIES]
    highest = max([1, *(count for _, count in shown)])
    room = WIDTH - NAMES_WIDTH - COUNT_WIDTH
    parts = []
    for row, (name, count) in enumerate(shown):
        y, width = row * ROW_HEIGHT, max(room * count / highest, 1.5)
        short = name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
        parts.append(
            f"<g><title>{html.escape(name)}: {count:,}</title>"
            f'<text class="name" x="{NAMES_WIDTH - 8}" y="{y + 14}" text-anchor="end">'
            f"{html.escape(short)}</text>"
            f'<rect class="bar" x="{NAMES_WIDTH}" y="{y + 4}" width="{width:.1f}" height="12"/>'
            f'<text x="{NAMES_WIDTH + width + 6:.1f}" y="{y + 14}">{short_number(count)}</text></g>'
        )
    note = f"{len(counts):,} of {num_names:,} names were given"
    if len(counts) > len(shown):
        rest = sum(count for _, count in counts[MAX_CATEGORIES:])
        note += f"; the {len(counts) - len(shown):,} rarer ones stand for {rest:,} objects"
    height = max(len(shown), 1) * ROW_HEIGHT + 6
    return _section("Names", note, f"0 0 {WIDTH} {height}", "".join(parts))


def _section(title: str, note: str, view_box: str, drawing: str) -> str:
    name = html.escape(title)
    return (
        f'<section><h2>{name}</h2><svg viewBox="{view_box}" role="img" aria-label="{name}">'
        f"{drawing}</svg><p>{html.escape(note)}</p></section>\n"
    )
