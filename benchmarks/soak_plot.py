"""The course of a soak as one SVG without scripts: progress, memory, open files, and each kill."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from soak_watch import Phase, Sample

WIDTH, LEFT, RIGHT, TOP = 900, 70, 40, 64
LANE_HEIGHT, LANE_GAP = 110, 34
STYLE = """
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #1c2330; } .faint { fill: #667085; } .grid { stroke: #d9dde4; }
.line { fill: none; stroke: #1d4ed8; stroke-width: 1.5; } .kill { stroke: #c2410c; opacity: 0.55; }
@media (prefers-color-scheme: dark) { svg { background: #12161d; } text { fill: #e6e9ef; }
  .faint { fill: #98a2b3; } .grid { stroke: #323b49; } .line { stroke: #7aa2ff; }
  .kill { stroke: #ff9d5c; } }
"""
LANES: tuple[tuple[str, Callable[[Sample], float]], ...] = (
    ("finished images", lambda sample: sample.num_rows),
    ("memory of the largest process, MB", lambda sample: sample.largest_rss_mb),
    ("open files of the process with most", lambda sample: sample.most_files),
)


def draw_soak(phases: Sequence[Phase], *, title: str) -> str:
    """Draw all phases side by side, each as wide as it took.

    Args:
        phases: at least one.
        title: above the plot.
    """
    total = sum(phase.seconds for phase in phases)
    height = TOP + len(LANES) * (LANE_HEIGHT + LANE_GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<style>{STYLE}</style>",
        f'<text x="12" y="20" font-weight="600">{html.escape(title)}</text>',
    ]
    for number, (name, value_of) in enumerate(LANES):
        parts += _draw_lane(phases, name, value_of, TOP + number * (LANE_HEIGHT + LANE_GAP), total)
    start = 0.0
    for phase in phases:
        x = _place(start, total)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 12}" y2="{height - 20}"/>'
            f'<text class="faint" x="{x + 3:.1f}" y="{TOP - 24}">{html.escape(phase.name)}: '
            f"{phase.seconds:.0f} s, {len(phase.kills)} kills</text>"
        )
        for kill in phase.kills:
            x = _place(start + kill.seconds, total)
            parts.append(
                f'<line class="kill" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - 20}"/>'
            )
        start += phase.seconds
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(seconds: float, total: float) -> float:
    return LEFT + seconds / max(total, 1e-9) * (WIDTH - LEFT - RIGHT)


def _draw_lane(
    phases: Sequence[Phase],
    name: str,
    value_of: Callable[[Sample], float],
    top: float,
    total: float,
) -> list[str]:
    most = max([value_of(sample) for phase in phases for sample in phase.samples] or [1]) or 1
    bottom = top + LANE_HEIGHT
    parts = [
        f'<text x="{LEFT}" y="{top - 5}">{html.escape(name)}</text>',
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        f'<text class="faint" x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{most:,.0f}</text>',
        f'<text class="faint" x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
    ]
    start = 0.0
    for phase in phases:
        points = " ".join(
            f"{_place(start + sample.seconds, total):.1f},"
            f"{bottom - value_of(sample) / most * LANE_HEIGHT:.1f}"
            for sample in phase.samples
        )
        parts.append(f'<polyline class="line" points="{points}"/>')
        start += phase.seconds
    return parts
