"""`training.html`: the log as curves, one file without scripts that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.html_page import nice_ticks, render_page, short_number
from ovsam_cli.training.logs import LOG_NAME, LogLine, read_log

CURVES_NAME = "training.html"
MAX_POINTS = 400  # of a curve: more are averaged
MAX_SERIES = 6  # of a chart: as many colors as eyes tell apart
LOG_SCALE_FROM = 30.0  # greatest over smallest value
WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 10, 30
_NOT_LOSSES = {
    *("kind", "step", "learning_rate", "seconds"),
    *("images_per_second", "gradient_norm", "nonfinite_steps"),
}

STYLE = """
p { margin: .2rem 0 1.2rem; color: var(--faint); }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%),
  1fr)); }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
ul { list-style: none; margin: .4rem 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1rem; font-size: 13px; font-variant-numeric: tabular-nums; }
li::before { content: ""; display: inline-block; width: .9em; height: 3px; margin-right: .4em;
  vertical-align: middle; background: var(--color); }
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: values at steps, both of equal length, at least one."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def write_curves(folder: Path, *, max_steps: int) -> None:
    """Draw the folder's log anew.

    Args:
        folder: of the run.
        max_steps: end of the schedule.

    Raises:
        OutputError: the file cannot be written.
    """
    page = render_curves(read_log(folder / LOG_NAME), title=folder.resolve().name, end=max_steps)
    with write_whole_file(folder / CURVES_NAME) as file:
        file.write(page.encode())


def render_curves(lines: Sequence[LogLine], *, title: str, end: int) -> str:
    """The page of a log's lines.

    Args:
        lines: of `log.jsonl`, in order.
        title: of the run.
        end: last step of the schedule.
    """
    trained = [line for line in lines if line["kind"] == "train"]
    judged = [line for line in lines if line["kind"] == "validation"]
    losses = [name for name in _find_names(trained) if name not in _NOT_LOSSES]
    scores = [name for name in _find_names(judged) if name not in ("kind", "step")]
    charts = [
        *_render_charts("Losses", trained, losses, end),
        *_render_charts("Scores", judged, scores, end),
        *_render_charts("Learning rate", trained, ["learning_rate"], end),
        *_render_charts("Images a second", trained, ["images_per_second"], end),
        *_render_charts("Gradient norm", trained, ["gradient_norm"], end),
        *_render_charts("Skipped steps (not finite)", trained, ["nonfinite_steps"], end),
    ]
    name = html.escape(title)
    body = f"<h1>{name}</h1>\n<p>{_describe(lines, end)}</p>\n<main>\n{''.join(charts)}</main>"
    return render_page(title, body, style=STYLE)


def _describe(lines: Sequence[LogLine], end: int) -> str:
    if not lines:
        return "no line in the log yet"
    texts = [f"step {lines[-1]['step']} of {end}"]
    seconds = [float(line["seconds"]) for line in lines if "seconds" in line]
    if seconds:
        texts.append(f"{seconds[-1] / 3600:.2f} hours of training")
    scored = [line for line in lines if "score" in line]
    if scored:
        best = max(scored, key=lambda line: float(line["score"]))
        texts.append(f"best score {short_number(float(best['score']))} at step {best['step']}")
    return ", ".join(texts)


def _find_names(lines: Sequence[LogLine]) -> list[str]:
    """Names of all lines, in the order they appear in."""
    return [*dict.fromkeys(name for line in lines for name in line)]


def _render_charts(
    title: str, lines: Sequence[LogLine], names: Sequence[str], end: int
) -> list[str]:
    """Charts of these names, a few curves in each; none for names without values."""
    found = [_take_series(lines, name) for name in names]
    series = [one for one in found if one is not None]
    parts = [series[start : start + MAX_SERIES] for start in range(0, len(series), MAX_SERIES)]
    return [_render_chart(title, part, end) for part in parts]


def _take_series(lines: Sequence[LogLine], name: str) -> Series | None:
    points = [(float(line["step"]), float(line[name])) for line in lines if name in line]
    if not points:
        return None
    width = math.ceil(len(points) / MAX_POINTS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return Series(
        name,
        tuple(group[-1][0] for group in groups),
        tuple(sum(value for _, value in group) / len(group) for group in groups),
    )


def _render_chart(title: str, series: Sequence[Series], end: int) -> str:
    scale = _Scale.of([value for one in series for value in one.values], end)
    grid = []
    for value in scale.ticks():
        y = scale.y(value)
        grid.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>'
        )
    for step in nice_ticks(0, end, 5):
        grid.append(
            f'<text x="{scale.x(step):.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
            f"{short_number(step)}</text>"
        )
    curves = [_render_curve(one, scale, f"var(--s{row})") for row, one in enumerate(series)]
    legend = [
        f'<li style="--color: var(--s{row})">{html.escape(one.name.replace("_", " "))} '
        f"{short_number(one.values[-1])}</li>"
        for row, one in enumerate(series)
    ]
    return (
        f"<section><h2>{html.escape(title)}</h2>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">\n'
        f"{''.join(grid)}\n{''.join(curves)}</svg>\n<ul>{''.join(legend)}</ul></section>\n"
    )


def _render_curve(series: Series, scale: _Scale, color: str) -> str:
    """A line; a dot at each point where there are few."""
    points = [
        (scale.x(step), scale.y(value))
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline class="line" style="stroke: {color}" points="{path}"/>\n'
    if len(points) > MAX_POINTS // 8:
        return line
    return line + "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" style="fill: {color}"/>' for x, y in points
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """From steps and values to pixels; logarithmic where values span orders of magnitude."""

    low: float
    high: float
    end: float
    is_log: bool

    @staticmethod
    def of(values: Sequence[float], end: int) -> _Scale:
        low, high = min(values), max(values)
        if low > 0 and high / low > LOG_SCALE_FROM:
            return _Scale(low, high, end, True)
        low = min(low, 0.0)
        if high == low:
            high = low + 1.0
        return _Scale(low, high + 0.05 * (high - low), end, False)

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(self.end, 1)

    def y(self, value: float) -> float:
        low, high, here = self.low, self.high, value
        if self.is_log:
            low, high, here = math.log(low), math.log(high), math.log(value)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (here - low) / (high - low)

    def ticks(self) -> list[float]:
        if not self.is_log:
            return nice_ticks(self.low, self.high, 5)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        return [tick for tick in ticks if self.low <= tick <= self.high]
