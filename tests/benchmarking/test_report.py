"""What was measured as JSON, table and plot; void rows keep their figure to themselves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from ovsam_cli.benchmarking.comparison import Comparison, Parity
from ovsam_cli.benchmarking.machine import describe_machine
from ovsam_cli.benchmarking.measurement import Measurement, Skipped
from ovsam_cli.benchmarking.plot import draw_ratios
from ovsam_cli.benchmarking.report import build_table, render_json, render_markdown, write_report
from ovsam_cli.benchmarking.suites import BenchReport

HOLDS, FAILS = Parity("pixels that differ", 0, 0), Parity("pixels that differ", 7, 0)
GOOD = Comparison("C7", "run <lengths>", "core", (8.0, 9.0), (1.0, 1.0), (HOLDS,), target=8.0)
VOID = Comparison("C8", "grid filter", "core", (123.0,), (1.0,), (FAILS,), target=50.0)
HELP = Measurement("S1", "help", "core s", (0.1, 0.12), (HOLDS,), target=0.15, note="warm cache")
ABSENT = Skipped("C9", "jpeg", "OpenCV is not installed")


@pytest.fixture
def report() -> BenchReport:
    machine = describe_machine(torch.device("cpu"))
    return BenchReport("quick", "small", machine, (GOOD, VOID, HELP, ABSENT), 5)


def test_machine() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine.cpu and machine.num_cores >= 1 and machine.gpu == ""
    assert torch.__version__.startswith(dict(machine.packages)["torch"])
    assert machine.date.startswith("20") and machine.date.endswith("+00:00")


def test_table() -> None:
    good, void, shown, absent = build_table([GOOD, VOID, HELP, ABSENT])
    assert good.cells[4:6] == ("8.5 (8-9) x", ">= 8 x, met")
    assert good.is_target_met and not good.is_void
    assert void.is_void and void.is_target_met is None
    assert "not equal: pixels that differ 7" in void.cells[4] and "123" not in void.cells[4]
    assert shown.cells[4:6] == ("0.11 (0.1-0.12) core s", "<= 0.15 core s, met")
    assert absent.cells[4] == "not measured" and absent.cells[-1] == ABSENT.reason


def test_markdown(report: BenchReport) -> None:
    page = render_markdown(report)
    assert "| C7 | run <lengths> |" in page
    assert "8.5 (8-9) x" in page
    assert "- S1 help: warm cache" in page
    assert report.machine.cpu in page and "`small` (random weights)" in page


def test_json(report: BenchReport) -> None:
    content = json.loads(render_json(report))
    good, void, shown, absent = content["rows"]
    assert good["ratio"] == 8.5 and good["is_target_met"] is True
    assert "ratio" not in void and void["is_valid"] is False
    assert void["parity"][0]["value"] == 7
    assert shown["value"] == pytest.approx(0.11)
    assert absent["kind"] == "skipped"
    assert content["machine"]["cpu"] == report.machine.cpu
    assert report.num_void == 1


def test_plot() -> None:
    drawn = draw_ratios([GOOD, VOID, HELP, ABSENT], title="a & b")
    ElementTree.fromstring(drawn)
    assert drawn.count('class="bar"') == 1
    assert "run &lt;lengths&gt;" in drawn and "not equal: no ratio" in drawn


def test_plot_without_comparisons() -> None:
    ElementTree.fromstring(draw_ratios([HELP], title=""))


def test_files(report: BenchReport, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path)
    stem = f"bench-quick-cpu-{report.machine.date[:10]}"
    assert [path.name for path in paths] == [f"{stem}.json", f"{stem}.md", f"{stem}.svg"]
    assert all(path.is_file() for path in paths)
