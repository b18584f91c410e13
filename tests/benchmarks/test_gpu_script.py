"""`benchmarks/gpu.sh` on the CPU with a small model: every row of the GPU comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"


def run_dry(out: Path, only: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DRY_RUN": "1", "OUT": str(out)}
    environment |= {"OVSAM": f"{sys.executable} -m ovsam_cli", "OMP_NUM_THREADS": "1"}
    if only is not None:
        environment["ONLY"] = only
    return subprocess.run(
        ["bash", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )


def test_dry_run_of_some_rows(tmp_path: Path) -> None:
    done = run_dry(tmp_path, only="C4,C5,C8,G8,G9,G10")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("bench-full-cpu-*.json")
    content = json.loads(path.read_text())
    keys = [row["key"] for row in content["rows"]]
    assert {"C4", "C5", "C8", "G8", "G9", "G10"} <= set(keys)
    assert all(row.get("is_valid", True) for row in content["rows"])
    assert content["preset"] == "small"


@pytest.mark.slow
def test_dry_run(tmp_path: Path) -> None:
    done = run_dry(tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("bench-full-cpu-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert {f"G{number}" for number in range(1, 12)} <= {row["key"] for row in rows}
    assert all(row.get("is_valid", True) for row in rows)


def test_unknown_rows_are_refused(tmp_path: Path) -> None:
    done = run_dry(tmp_path, only="G99")
    assert done.returncode == 2
    assert "G99 is no key of a row" in done.stderr
