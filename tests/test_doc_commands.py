"""Every command that README and documents show is one: its options, choices and arguments parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from ovsam_cli.cli.main import build_app

ROOT = Path(__file__).parent.parent
# docs/cli.md shows no commands, only their help: tests/cli/test_cli_reference.py.
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{path.name}"
        for path in sorted((ROOT / "docs").glob("*.md"))
        if path.name != "cli.md"
    ),
)
# Flags of torchrun that documents show; all of them take a value but the first.
TORCHRUN_FLAG, TORCHRUN_OPTIONS = "--no-python", ("--nproc-per-node", "--nnodes")


def find_lines(document: str) -> list[str]:
    """Lines of all command blocks, long ones joined."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    blocks = [block for language, block in found if language == ""]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def find_commands(document: str, program: str) -> list[list[str]]:
    """Arguments of every call of `program`, comments and torchrun's own ones taken off."""
    found = []
    for line in find_lines(document):
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            if words[:1] == ["torchrun"]:
                words = strip_torchrun(words)
            if words[:1] == [program]:
                found.append(words[1:])
    return found


def strip_torchrun(words: list[str]) -> list[str]:
    assert words[1] == TORCHRUN_FLAG
    words = words[2:]
    while words[0] in TORCHRUN_OPTIONS:
        words = words[2:]
    return words


COMMANDS = [
    pytest.param(arguments, id=f"{document}: {' '.join(arguments)}"[:90])
    for document in DOCUMENTS
    for arguments in find_commands(document, "ovsam")
    if "--config" not in arguments  # whose file is there in test_doc_runs.py alone
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_ovsam_command_parses(arguments: list[str]) -> None:
    command = typer.main.get_command(build_app())
    while isinstance(command, TyperGroup):
        group = command.make_context("ovsam", [arguments[0]], resilient_parsing=True)
        command, arguments = command.get_command(group, arguments[0]), arguments[1:]
        assert command is not None
    command.make_context(str(command.name), list(arguments))  # raises what a user would see


def test_documents_show_every_training_command() -> None:
    shown = {tuple(one[:2]) for one in find_commands("docs/training.md", "ovsam")}
    for name in ("scenes", "cache-teacher", "sam2clip", "clip2sam"):
        assert ("train", name) in shown


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_make_targets_are_there(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    script = (ROOT / "scripts" / "train-tiny").read_text(encoding="utf-8")
    text = (ROOT / document).read_text(encoding="utf-8")
    inline = re.findall(r"`make ([^`]*)`", text)
    calls = [shlex.split(one) for one in inline] + find_commands(document, "make")
    for words in calls:
        for word in words:
            name, equals, _ = word.partition("=")
            if equals:
                assert name in script, name
            else:
                assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (ROOT / document).parent.joinpath(target).exists(), target
