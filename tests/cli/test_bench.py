"""`ovsam bench` writes its files and refuses a figure without proof."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from ovsam_cli.benchmarking import suites
from ovsam_cli.benchmarking.comparison import Comparison, Parity
from ovsam_cli.benchmarking.measurement import Row
from ovsam_cli.benchmarking.settings import BenchSettings

FAST = ("bench", "--device", "cpu", "--scale", "minimal", "--quiet")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_files_and_table(ovsam: Callable[..., Result], tmp_path: Path) -> None:
    done = ovsam(*FAST, "--only", "C8", "--out", tmp_path / "results")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "results").glob("*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert row["key"] == "C8" and row["ratio"] > 0
    assert str(path) in done.stdout.replace("\n", "")
    assert {one.suffix for one in path.parent.iterdir()} == {".json", ".md", ".svg"}


def test_no_figure_without_proof(
    ovsam: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Comparison("C8", "grid", "core", (777.0,), (1.0,), (Parity("masks", 3, 0),))
    monkeypatch.setattr(suites, "compare_grid_filters", lambda settings: [wrong])
    done = ovsam(*FAST, "--only", "C8", "--out", tmp_path)
    assert done.exit_code == 1
    assert "1 row(s) without a figure: the results do not agree" in done.stderr
    (path,) = tmp_path.glob("*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert "ratio" not in row and row["is_valid"] is False


def test_rows_before_a_stop_stay(
    ovsam: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(settings: BenchSettings) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "compare_reading", stop)
    done = ovsam(*FAST, "--only", "C8,C9", "--out", tmp_path)
    assert done.exit_code == 130
    (path,) = tmp_path.glob("*.json")
    assert [row["key"] for row in json.loads(path.read_text())["rows"]] == ["C8"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "C88"), "C88 is no key of a row; there is C1, C2, C3, C3-large, C4"),
        (("--suite", "fast"), "'fast' is not one of 'quick', 'full'."),
        (("--threads", "0"), "'0' is not in the range 1.."),
    ],
)
def test_user_errors(
    ovsam: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = ovsam(*FAST, "--out", tmp_path, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_device_that_is_not_there(ovsam: Callable[..., Result], tmp_path: Path) -> None:
    done = ovsam("bench", "--device", "cuda:77", "--out", tmp_path)
    assert done.exit_code == 2
    assert "cuda:77" in done.stderr
