"""The ratios of a suite as bars on a logarithmic axis: one SVG without scripts."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from ovsam_cli.benchmarking.comparison import Comparison
from ovsam_cli.benchmarking.measurement import Row

WIDTH, LEFT, RIGHT, TOP, ROW_HEIGHT = 860, 380, 90, 44, 26
STYLE = """
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #1c2330; } .faint { fill: #667085; } .grid { stroke: #d9dde4; }
.bar { fill: #1d4ed8; } .range { stroke: #1c2330; } .target { stroke: #c2410c; stroke-width: 2; }
@media (prefers-color-scheme: dark) { svg { background: #12161d; } text { fill: #e6e9ef; }
  .faint { fill: #98a2b3; } .grid { stroke: #323b49; } .bar { fill: #7aa2ff; }
  .range { stroke: #e6e9ef; } .target { stroke: #ff9d5c; } }
"""


def draw_ratios(rows: Sequence[Row], *, title: str) -> str:
    """Draw how many times faster ours is, with range and target; void rows have no bar.

    Args:
        rows: of a suite; only comparisons are drawn.
        title: above the plot.
    """
    shown = [row for row in rows if isinstance(row, Comparison)]
    ratios = [ratio for row in shown if row.is_valid for ratio in row.ratios]
    targets = [row.target for row in shown if row.target]
    decades = _find_decades([*ratios, *targets])
    height = TOP + ROW_HEIGHT * max(len(shown), 1) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<text x="12" y="22" font-weight="600">{html.escape(title)}: times faster than the '
        "baseline (bar median, line range, orange target)</text>",
        *(_draw_tick(decade, decades, height) for decade in range(decades[0], decades[1] + 1)),
        *(_draw_row(row, number, decades) for number, row in enumerate(shown)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _find_decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around 1 and all values."""
    logs = [math.log10(value) for value in values if value > 0]
    low, high = min([0.0, *logs]), max([1.0, *logs])
    return math.floor(low), math.ceil(high)


def _place(value: float, decades: tuple[int, int]) -> float:
    low, high = decades
    share = (math.log10(value) - low) / (high - low)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _draw_tick(decade: int, decades: tuple[int, int], height: int) -> str:
    x = _place(10.0**decade, decades)
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 24}"/>'
        f'<text class="faint" x="{x:.1f}" y="{height - 8}" text-anchor="middle">'
        f"{10.0**decade:g}</text>"
    )


def _draw_row(row: Comparison, number: int, decades: tuple[int, int]) -> str:
    y = TOP + number * ROW_HEIGHT
    label = html.escape(f"{row.key} {row.name}".strip())
    text = f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{label}</text>'
    if not row.is_valid:
        return f'{text}<text class="faint" x="{LEFT + 6}" y="{y + 14}">not equal: no ratio</text>'
    start, end = _place(1.0, decades), _place(row.ratio, decades)
    low, high = _place(min(row.ratios), decades), _place(max(row.ratios), decades)
    parts = [
        text,
        f'<rect class="bar" x="{min(start, end):.1f}" y="{y + 3}" '
        f'width="{max(abs(end - start), 1):.1f}" height="14" rx="2"/>',
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 10}" y2="{y + 10}"/>',
        f'<text x="{max(high, start) + 6:.1f}" y="{y + 14}">{row.ratio:.3g}</text>',
    ]
    if row.target:
        x = _place(row.target, decades)
        parts.append(f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 20}"/>')
    return "".join(parts)
