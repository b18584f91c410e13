"""What the README shows works: its commands are accepted, its prompt file is one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from small_model import write_photos
from typer.testing import Result

from ovsam_cli.labelling.run_files import ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE
from ovsam_cli.prompts import read_prompts
from ovsam_cli.vocabulary import read_vocabulary

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
LABEL_LINES = [
    line.partition("   #")[0].strip()
    for language, block in BLOCKS
    if language == ""
    for line in block.splitlines()
    if line.startswith("ovsam label ")
]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's commands name."""
    write_photos(tmp_path / "images")
    write_photos(tmp_path / "other")
    (tmp_path / "other" / "a.jpg").rename(tmp_path / "photo.jpg")
    (tmp_path / "list.txt").write_text("images/a.jpg\nimages/more/b.png\n")
    (tmp_path / "names.txt").write_text("cat\ndog, puppy\n")
    (tmp_path / "prompts.json").write_text(
        '{"images": [{"file_name": "a.jpg", "boxes": [[1, 2, 30, 40]]}]}'
    )
    images = [{"id": 9, "file_name": "a.jpg", "width": 80, "height": 60}]
    dataset = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    row = {"image_id": 9, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9}
    (tmp_path / "detections.json").write_text(json.dumps([row]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shows_label_commands() -> None:
    assert len(LABEL_LINES) >= 4


@pytest.mark.parametrize("line", LABEL_LINES)
def test_label_command_is_accepted(
    line: str, workplace: Path, ovsam: Callable[..., Result]
) -> None:
    result = ovsam(*shlex.split(line)[1:], "--dry-run")
    assert result.exit_code == 0, result.output


def test_prompt_file_is_read(tmp_path: Path) -> None:
    (block,) = [block for language, block in BLOCKS if language == "json"]
    path = tmp_path / "prompts.json"
    path.write_text(block)
    prompts = read_prompts(str(path))
    assert (prompts.num_images, prompts.num_prompts) == (2, 4)


@pytest.mark.parametrize("name", [ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE])
def test_names_the_files_of_a_run(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", ["coco", "lvis", "objects365", "openimages", "ade20k", "voc"])
def test_category_counts(name: str) -> None:
    assert f"{len(read_vocabulary(name)):,}" in README


def test_speaks_of_every_command(ovsam: Callable[..., Result]) -> None:
    for command in ("label", "embed-vocab", "models", "train"):
        assert f"`ovsam {command}" in README or f"\novsam {command}" in README
        assert ovsam(command, "--help").exit_code == 0


def test_train_commands_have_their_options(ovsam: Callable[..., Result]) -> None:
    shown = README.replace("\\\n", " ")
    for command in ("scenes", "cache-teacher", "sam2clip", "clip2sam"):
        lines = re.findall(rf"ovsam train {command} .*$", shown, flags=re.MULTILINE)
        assert lines
        known = ovsam("train", command, "--help").stdout
        for option in re.findall(r"--[a-z-]+", " ".join(lines)):
            assert option in known
