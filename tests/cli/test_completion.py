"""Shells ask the program itself for completions: commands, their commands, options, choices."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ovsam_cli.cli.lazy import COMMANDS
from ovsam_cli.cli.main import build_app


def ask(shell: str, line: str) -> str:
    """What the program answers a shell that stands at the end of a line."""
    words = line.split(" ")
    environment = {
        "_OVSAM_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return CliRunner().invoke(build_app(), [], prog_name="ovsam", env=environment).stdout


def test_bash_gets_every_command() -> None:
    assert set(ask("bash", "ovsam ").split()) == set(COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ovsam emb", "embed-vocab"),
        ("ovsam eval pro", "prompted"),
        ("ovsam label --prompts-per", "--prompts-per-batch"),
        ("ovsam label --dtype bfl", "bfloat16"),
        ("ovsam export coco --par", "--partial"),
    ],
)
def test_every_shell_gets_what_begins_so(shell: str, line: str, wanted: str) -> None:
    answer = ask(shell, line)
    if wanted == "bfloat16":  # "bfl" begins it, "auto" not
        assert "auto" not in answer
    assert wanted in answer


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_shown(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = CliRunner().invoke(build_app(), ["--show-completion", shell], prog_name="ovsam")
    assert done.exit_code == 0
    assert f"complete_{shell}" in done.stdout
