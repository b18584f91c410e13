"""`ovsam doctor`: what it finds, and what makes it say that something is broken."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import Result

from ovsam_cli import doctor
from ovsam_cli.model import hub

Ovsam = Callable[..., Result]
ROOT = Path(__file__).parent.parent.parent
TOPICS = ("programs", "plug-ins", "devices", "weights", "folders")


def test_a_sound_machine(ovsam: Ovsam, tmp_path: Path) -> None:
    done = ovsam("doctor", "--out", tmp_path / "new" / "run")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for topic in TOPICS:
        assert lines.count(topic) == 1
    assert any("tiny.safetensors" in line and "sha256 ok" in line for line in lines)
    assert any("ovsam models download rn50x16" in line for line in lines)
    assert any(line.startswith("  out") and "not made yet" in line for line in lines)
    assert not (tmp_path / "new").exists()


def test_json_lines(ovsam: Ovsam) -> None:
    rows = [json.loads(line) for line in ovsam("doctor", "--json").stdout.splitlines()]
    assert rows[-1]["event"] == "finished" and rows[-1]["num_broken"] == 0
    assert {row["topic"] for row in rows[:-1]} == set(TOPICS)
    assert all({"ts", "level", "event", "name", "text", "status"} <= set(row) for row in rows[:-1])


def test_damaged_weights_are_broken(
    ovsam: Ovsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "tiny.safetensors"
    damaged.write_bytes(b"no weights")
    (tmp_path / "tiny.safetensors.sha256").write_text(f"{'0' * 64}  tiny.safetensors\n")
    monkeypatch.setattr(hub, "TINY_PATH", damaged)
    done = ovsam("doctor")
    assert done.exit_code == 1
    assert "BROKEN: " in done.stdout and "its sha256 is" in done.stdout
    assert "1 of the things above must be mended first" in done.stderr


def test_an_output_below_a_file_is_broken(ovsam: Ovsam, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = ovsam("doctor", "-q", "--out", tmp_path / "file" / "run")
    assert done.exit_code == 1
    assert "is a file, no folder; choose another --out" in done.stdout


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(package: str) -> str:
        if package in ("numpy", "numba"):
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(doctor, "version", find)
    found = {one.name: one for one in doctor.examine_programs()}
    assert found["numpy"].status == "broken"
    assert found["[fast]"].status == "note"
    assert "without numba JPEG decoding" in found["[fast]"].text
    assert "pip install 'ovsam-cli[fast]'" in found["[fast]"].text


def test_every_extra_says_what_its_absence_costs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"dev"}
    assert extras == set(doctor.EXTRA_USES)


def test_programs_of_plug_ins_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(package: str) -> str:
        if package == "fiftyone":
            raise PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr(doctor, "version", find)
    found = {one.name: one for one in doctor.examine_plug_ins()}
    assert set(found) == {"cvat-cli", "cvat-sdk", "fiftyone", "supervision"}
    assert found["cvat-sdk"].text.startswith("1.2.3 (")
    assert found["fiftyone"].text.startswith("not installed (ovsam_cli.plugins.fiftyone")
    assert {one.status for one in found.values()} == {"ok"}


def test_a_folder_is_measured(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert doctor.measure_folder(tmp_path) == 8
