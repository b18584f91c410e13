"""The page of curves: complete, readable as XML, right pixels, no outside resources."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ovsam_cli.training.curves import MAX_POINTS, render_curves, write_curves
from ovsam_cli.training.logs import LOG_NAME


def make_log(num_lines: int) -> list[dict[str, float | int | str]]:
    lines: list[dict[str, float | int | str]] = []
    for step in range(1, num_lines + 1):
        values = {"loss": 2.0 / step, "dice_<b>": 1.0 / step, "gradient_norm": 3.0}
        rates = {"learning_rate": 1e-4, "images_per_second": 5.0, "seconds": 3600.0 * step}
        lines.append({"kind": "train", "step": step, **values, **rates})
    lines.append({"kind": "validation", "step": num_lines, "score": 0.5, "top1": 0.25})
    return lines


def read_charts(page: str) -> dict[str, ElementTree.Element]:
    """Parsed charts by title."""
    sections = re.findall(r"<section>.*?</section>", page, flags=re.DOTALL)
    charts = [ElementTree.fromstring(section) for section in sections]
    return {str(chart.findtext("h2")): chart for chart in charts}


def test_page_has_every_value_of_the_log() -> None:
    page = render_curves(make_log(3), title="my <run>", end=4)
    charts = read_charts(page)
    assert [*charts] == ["Losses", "Scores", "Learning rate", "Images a second", "Gradient norm"]
    legends = {name: [item.text for item in chart.iter("li")] for name, chart in charts.items()}
    assert legends["Losses"] == ["loss 0.6667", "dice <b> 0.3333"]
    assert legends["Scores"] == ["score 0.5", "top1 0.25"]
    assert legends["Learning rate"] == ["learning rate 1e-4"]
    assert "my &lt;run&gt;" in page
    assert "step 3 of 4, 3.00 hours of training, best score 0.5 at step 3" in page
    assert "http" not in page and "<script" not in page
    assert "prefers-color-scheme: dark" in page


def test_points_stand_at_their_steps_and_values() -> None:
    (line,) = read_charts(render_curves(make_log(2), title="run", end=4))["Gradient norm"].iter(
        "polyline"
    )
    numbers = [*map(float, line.attrib["points"].replace(",", " ").split())]
    # From 58 to 560 - 24 in four steps; 0 to 3 * 1.05 from 260 - 30 up to 10.
    assert numbers == pytest.approx([177.5, 20.5, 297.0, 20.5], abs=0.06)


def test_losses_over_orders_of_magnitude_are_logarithmic() -> None:
    chart = read_charts(render_curves(make_log(100), title="run", end=100))["Losses"]
    texts = [text.text for text in chart.iter("text")]
    assert {"0.1", "1"} <= {*texts} and "0" in texts  # 0 is the first step
    heights = [
        float(point.split(",")[1])
        for point in next(chart.iter("polyline")).attrib["points"].split()
    ]
    rises = [heights[index] - heights[0] for index in (9, 99)]
    assert rises[1] == pytest.approx(2 * rises[0], rel=1e-3)
    assert all(math.isfinite(height) for height in heights)


def test_long_logs_are_averaged() -> None:
    chart = read_charts(render_curves(make_log(5000), title="run", end=5000))["Images a second"]
    points = next(chart.iter("polyline")).attrib["points"].split()
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS
    assert {point.split(",")[1] for point in points} == {"20.5"}


def test_many_scores_are_spread_over_charts() -> None:
    lines: list[dict[str, float | int | str]] = [
        {"kind": "validation", "step": 1, **{f"score {number}": 0.0 for number in range(14)}}
    ]
    page = render_curves(lines, title="run", end=1)
    assert page.count("<h2>Scores</h2>") == 3


def test_empty_log(tmp_path: Path) -> None:
    write_curves(tmp_path, max_steps=10)
    assert "no line in the log yet" in (tmp_path / "training.html").read_text()
    (tmp_path / LOG_NAME).write_text('{"kind": "train", "step": 1, "loss": 0.0}\n{"ki')
    write_curves(tmp_path, max_steps=10)
    assert "step 1 of 10" in (tmp_path / "training.html").read_text()
