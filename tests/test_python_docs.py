"""The Python of README and documents runs as it stands there, one block after the other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from doc_commands import DOCUMENTS, ROOT, find_blocks

import ovsam_cli

API = "docs/python-api.md"
FIFTYONE = "docs/exports.md"


def find_python(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return ["\n".join(lines) for language, lines in find_blocks(text) if language == "python"]


PAGES = [document for document in DOCUMENTS if find_python(document)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout's examples, and a photo."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "cat.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run_blocks(document: str, given: Mapping[str, object] | None = None) -> dict[str, object]:
    """Run a page's blocks, with names that it takes for granted; all names that are there then."""
    names = {**(given or {})}
    for block in find_python(document):
        exec(compile(block, document, "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore")
def test_example_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("supervision")
    assert len(find_python(API)) == 4
    run_blocks(API)
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[0] == "1" and said[0].endswith("pixels")
    assert said[-1].endswith("objects in 6 images")
    assert (workplace / "run" / "annotations.json").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("document", [page for page in PAGES if page not in (API, FIFTYONE)])
def test_blocks_run(document: str, workplace: Path) -> None:
    found = run_blocks(document)["found"]
    assert isinstance(found, ovsam_cli.Detections) and len(found) == 1


class _Base:
    """Stands for FiftyOne's classes."""

    def __init__(self) -> None:
        self.is_ready = True


class _DataSet:
    """Stands for one of FiftyOne's; `make interop` gives the model the real ones."""

    def __init__(self) -> None:
        self.applied: list[tuple[object, dict[str, str]]] = []

    def apply_model(self, model: object, *, label_field: str, prompt_field: str) -> None:
        self.applied.append((model, {"label_field": label_field, "prompt_field": prompt_field}))


def test_blocks_for_fiftyone_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for FiftyOne and the published weights, neither of which is here."""
    if find_spec("fiftyone") is None:
        for name in ("", ".core", ".core.labels", ".core.models", ".core.sample"):
            module = ModuleType(f"fiftyone{name}")
            module.__dict__.update(SamplesMixin=_Base, Model=type("Model", (), {}))
            monkeypatch.setitem(sys.modules, f"fiftyone{name}", module)
    asked = []
    load = "ovsam_cli.labelling.python_api.load_model"
    monkeypatch.setattr(load, lambda *words, **more: asked.append((*words, more)))
    monkeypatch.delitem(sys.modules, "ovsam_cli.plugins.fiftyone", raising=False)
    dataset = _DataSet()
    run_blocks(FIFTYONE, {"dataset": dataset})
    monkeypatch.delitem(sys.modules, "ovsam_cli.plugins.fiftyone")
    ((model, fields),) = dataset.applied
    assert type(model).__name__ == "OvsamModel" and len(fields) == 2
    assert asked == [("rn50x16", "cat, dog", {"devices": "auto", "options": None})]


def test_public_names_are_told() -> None:
    text = (ROOT / API).read_text() + (ROOT / "README.md").read_text()
    for name in ("load_model", "label_image", "label_images", "make_prompts", "OvsamError"):
        assert name in ovsam_cli.__all__ and name in text
