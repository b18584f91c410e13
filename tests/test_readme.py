"""What the README says holds: its prompt file is one, its tables are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_commands import ROOT, find_blocks
from typer.testing import Result

from ovsam_cli.labelling.run_files import ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE
from ovsam_cli.prompts import read_prompts
from ovsam_cli.vocabulary import read_vocabulary

README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_json(document: str) -> str:
    """The only block of JSON in a document."""
    text = (ROOT / document).read_text(encoding="utf-8")
    ((_, lines),) = [block for block in find_blocks(text) if block[0] == "json"]
    return "\n".join(lines)


@pytest.mark.parametrize("document", ["README.md", "docs/prompts.md"])
def test_prompt_file_is_read(document: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(find_json(document))
    prompts = read_prompts(str(path))
    assert (prompts.num_images, prompts.num_prompts) == (2, 4)


def test_vocabulary_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(find_json("docs/vocabularies.md"))
    found = read_vocabulary(str(path))
    assert [(one.id, one.name) for one in found.categories] == [(7, "cat"), (9, "dog")]


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
