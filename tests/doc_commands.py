"""The commands that README and documents show, and what each of them says it needs.

Every block is looked at, whatever its language: fenced, indented, job files too. A command is run
by `test_doc_runs.py` unless the document itself says what it needs that a test has not: in a
comment of its line, or of a line above it in the same block, as `# needs a GPU`. The words are
those of `NEEDS`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# docs/cli.md shows no commands, only their help: tests/cli/test_cli_reference.py.
DOCUMENTS = (
    "README.md",
    *(
        f"docs/{path.name}"
        for path in sorted((ROOT / "docs").glob("*.md"))
        if path.name != "cli.md"
    ),
    "CONTRIBUTING.md",
    "benchmarks/README.md",
)
# What a command may say it needs, and what is there to prove it all the same.
NEEDS = {
    r"a download": "scripts/time-first-label, by hand",
    r"(a |\d+ )?GPUs?": "tests/faults/test_devices.py has cpu,cpu; benchmarks/gpu.sh with DRY_RUN",
    r"hours": "make train-smoke runs every stage, tests/cli/test_bench.py every row's frame",
    r"minutes": "the command itself, by hand: what `make test` leaves out",
    r"a trained model": "tests/model/test_run_checkpoints.py, make train-smoke",
    r"Slurm|torchrun|Kubernetes": "tests/labelling/test_shards.py",
    r"Ray": "make test-ray",
    r"a bucket": "tests/test_remote.py",
    r"a browser": "tests/cli/test_demo_command.py, make test-demo",
    r"a shell": "tests/cli/test_completion.py",
    r"a CVAT server": "make interop",
    r"the photos": "COCO's, which are no part of the checkout",
}
COMMAND_LANGUAGES = {"", "sh", "bash", "shell", "console", "text", "yaml"}
PROGRAM = re.compile(r"ovsam|make|python[\d.]*|bash|pytest|cvat-cli|(?:\S*/)?pip")
# Flags of torchrun that documents show; all of them take a value but the first.
TORCHRUN_FLAG, TORCHRUN_OPTIONS = "--no-python", ("--nproc-per-node", "--nnodes")
_LIST_ITEM = re.compile(r"\s*([-*]|\d+\.)\s")


@dataclass(frozen=True, slots=True)
class Shown:
    """A command in a document.

    Attributes:
        document: path below the checkout.
        words: the program and its arguments; what starts it (srun, torchrun) is left out.
        needs: what the document says it needs; empty for commands that a test runs.
    """

    document: str
    words: tuple[str, ...]
    needs: str = ""

    @property
    def program(self) -> str:
        return self.words[0]

    @property
    def arguments(self) -> list[str]:
        return list(self.words[1:])


def find_blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Language and lines of every block of code: fenced (""), or indented by four (also "")."""
    lines = text.splitlines()
    number, is_list, is_after_blank = 0, False, True
    while number < len(lines):
        line = lines[number]
        fence = re.match(r"(\s*)```(\w*)", line)
        if fence:
            end = next(row for row in range(number + 1, len(lines)) if lines[row].strip() == "```")
            yield fence[2], [one.removeprefix(fence[1]) for one in lines[number + 1 : end]]
            number = end + 1
            continue
        is_code = line.startswith("    ") and is_after_blank and not is_list
        if is_code:
            end = number
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
            yield "", [one[4:] for one in lines[number:end]]
            number = end
            continue
        if line.strip():
            is_list = bool(_LIST_ITEM.match(line)) or (is_list and line.startswith(" "))
        is_after_blank = not line.strip()
        number += 1


def find_shown(document: str, text: str | None = None) -> list[Shown]:
    """Every command of a document.

    Args:
        document: path below the checkout.
        text: of it, where it is not to be read.
    """
    if text is None:
        text = (ROOT / document).read_text(encoding="utf-8")
    found = []
    for language, lines in find_blocks(text):
        if language in COMMAND_LANGUAGES:
            found += _read_block(document, lines, is_yaml=language == "yaml")
    return found


def _read_block(document: str, lines: list[str], *, is_yaml: bool) -> Iterator[Shown]:
    """Commands of a block; a line that is a comment counts for all that follow it."""
    needs_of_block = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        code, comment = _split_comment(line.strip().removeprefix("$ "))
        needs = _read_needs(comment)
        if not code:
            needs_of_block = needs or needs_of_block
            continue
        for words in _read_yaml(code) if is_yaml else _read_line(code):
            if words and PROGRAM.fullmatch(words[0]):
                yield Shown(document, tuple(words), needs or needs_of_block)


def _split_comment(line: str) -> tuple[str, str]:
    """A line, and what stands behind its `#`, unless that is quoted or part of a word."""
    for found in re.finditer(r"(?:^|\s)#\s*", line):
        code = line[: found.start()]
        try:
            shlex.split(code)
        except ValueError:  # within quotes
            continue
        return code.strip(), line[found.end() :]
    return line, ""


def _read_needs(comment: str) -> str:
    """What a comment says is needed; only the words of `NEEDS` count."""
    for found in re.finditer(r"\bneeds (\S.*)", comment):
        for pattern in NEEDS:
            if re.match(rf"({pattern})\b", found[1]):
                return pattern
        raise AssertionError(f"{comment!r}: none of {', '.join(NEEDS)}")
    return ""


def _read_line(code: str) -> Iterator[list[str]]:
    for part in re.split(r"\s&&\s|\s\|\s", code):
        try:
            words = shlex.split(part)
        except ValueError:  # a line of output, or of a table
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables of this command
            words = words[1:]
        if words[:1] == ["torchrun"]:
            words = _strip_torchrun(words)
        yield words[1:] if words[:1] == ["srun"] else words


def _read_yaml(code: str) -> Iterator[list[str]]:
    """The command of a container."""
    found = re.fullmatch(r"command: \[(.*)\]", code)
    if found:
        yield [one.strip().strip("\"'") for one in found[1].split(",")]


def _strip_torchrun(words: list[str]) -> list[str]:
    assert words[1] == TORCHRUN_FLAG
    words = words[2:]
    while words[0] in TORCHRUN_OPTIONS:
        words = words[2:]
    return words


def find_inline(document: str) -> list[str]:
    """What stands between backticks in a line of text, code blocks left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^\s*```.*?^\s*```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(one.split()) for one in re.findall(r"(?<!`)`([^`]+)`", text)]
