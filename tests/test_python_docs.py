"""The example of docs/python-api.md runs as it stands there, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ovsam_cli

ROOT = Path(__file__).parent.parent
DOCUMENT = "docs/python-api.md"


@pytest.mark.filterwarnings("ignore")
def test_example_runs(tmp_path, monkeypatch, capsys):
    """In a copy of the checkout's examples, with the bundled model."""
    pytest.importorskip("supervision")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / DOCUMENT).read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, DOCUMENT, "exec"), names)
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[0] == "1" and said[0].endswith("pixels")
    assert said[-1].endswith("objects in 6 images")
    assert (tmp_path / "run" / "annotations.json").exists()


def test_public_names_are_told():
    text = (ROOT / DOCUMENT).read_text() + (ROOT / "README.md").read_text()
    for name in ("load_model", "label_image", "label_images", "make_prompts", "OvsamError"):
        assert name in ovsam_cli.__all__ and name in text
