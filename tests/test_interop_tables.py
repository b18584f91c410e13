"""The tables of programs that read our files are what `make interop` has recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("write_interop_table", None)
    import write_interop_table

    return write_interop_table


def test_the_tables_are_the_recorded_ones(script: ModuleType) -> None:
    results = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert script.PAGE.read_text(encoding="utf-8") == script.make_page(results)
    (table,) = script.BLOCK.findall(script.README.read_text(encoding="utf-8"))
    assert table == script.make_readme_table(results)


def test_lines_of_one_program_become_one(script: ModuleType) -> None:
    def make(package: str, form: str, iou: float | None) -> dict[str, object]:
        return {
            "package": package,
            "version": "1.0",
            "form": form,
            "what": "`read`",
            "lowest_iou": iou,
        }

    rows = [
        make("a", "own", 1.0),
        make("a", "own", None),
        make("a", "poly", 0.868),
        make("b", "box", None),
    ]
    results = {"date": "2026-01-02", "python": "3.11.0", "rows": rows}
    table = script.make_readme_table(results).splitlines()
    assert table[-3:-1] == ["| a 1.0 | own | poly .87 | |", "| b 1.0 | | | box |"]
    page = script.make_page(results)
    assert "on 2026-01-02 with Python 3.11.0" in page
    assert page.endswith("| a | 1.0 | poly | `read` | 0.868 |\n| b | 1.0 | box | `read` | |\n")


def test_a_report_is_sorted_and_dated(script: ModuleType, tmp_path: Path) -> None:
    rows = [{"package": name, "form": "f", "what": "w"} for name in ("b", "A")]
    (tmp_path / "report.json").write_text(json.dumps(rows))
    results = script.take_results(tmp_path / "report.json")
    assert [row["package"] for row in results["rows"]] == ["A", "b"]
    assert results["date"].startswith("20") and results["python"]
