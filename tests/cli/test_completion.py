"""Shells ask the program itself for completions: commands, their commands, options, choices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_program_hands_a_shell_its_script(shell: str) -> None:
    """`_OVSAM_COMPLETE=source_fish ovsam | source`, without installing anything."""
    environment = {"_OVSAM_COMPLETE": f"source_{shell}"}
    done = CliRunner().invoke(build_app(), [], prog_name="ovsam", env=environment)
    assert done.exit_code == 0
    assert f"_OVSAM_COMPLETE=complete_{shell}" in done.stdout


def test_fish_asks_first_whether_there_is_anything() -> None:
    """Its script's condition: exit code 0 for names of ours, 1 where fish should offer files."""
    for line, exit_code in (("ovsam ex", 0), ("ovsam label imag", 1)):
        environment = {
            "_OVSAM_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "is-args",
        }
        done = CliRunner().invoke(build_app(), [], prog_name="ovsam", env=environment)
        assert (done.exit_code, done.stdout) == (exit_code, ""), line


def test_fish_shows_each_command_with_its_help() -> None:
    lines = ask("fish", "ovsam ").splitlines()
    told = dict(line.split("\t") for line in lines)
    assert set(told) == set(COMMANDS)
    for name, text in told.items():
        assert COMMANDS[name].help.startswith(text.removesuffix("...")), name


@pytest.mark.parametrize(
    ("shell", "line", "wanted"),
    [
        ("bash", "ovsam emb", "embed-vocab"),
        ("bash", "ovsam label --dtype bfl", "bfloat16"),
        ("fish", "ovsam emb", "embed-vocab"),
        ("fish", "ovsam label --dtype bfl", "bfloat16"),
    ],
)
def test_a_real_shell_completes(shell: str, line: str, wanted: str, tmp_path: Path) -> None:
    """With the script that the program prints, as after `ovsam --install-completion`."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "ovsam"
    program.write_text(f"#!{sys.executable}\nfrom ovsam_cli.__main__ import main\n\nmain()\n")
    program.chmod(0o755)
    words = line.split()
    asked = {
        "bash": f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        "_ovsam_completion ovsam; echo ${COMPREPLY[@]}",
        "fish": f"complete --do-complete '{line}'",
    }[shell]
    source = f"_OVSAM_COMPLETE=source_{shell} ovsam"
    script = f'eval "$({source})"; {asked}' if shell == "bash" else f"{source} | source; {asked}"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:1] == [wanted], done.stderr
