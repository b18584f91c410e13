"""Every command that README and documents show is one: its options, choices and arguments parse."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib

import pytest
import typer
from doc_commands import DOCUMENTS, NEEDS, ROOT, Shown, find_blocks, find_inline, find_shown
from typer._click import Command, Context
from typer.core import TyperGroup

from ovsam_cli.cli.main import build_app

SHOWN = [one for document in DOCUMENTS for one in find_shown(document)]
OVSAM = [
    one for one in SHOWN if one.program == "ovsam" and "--config" not in one.words
]  # that file is there in test_doc_runs.py alone


def name_of(one: Shown) -> str:
    return f"{one.document}: {' '.join(one.words)}"[:90]


def find_command(words: list[str]) -> tuple[Command, Context, list[str]]:
    """The command that words lead to, its context, and the words left over."""
    command = typer.main.get_command(build_app())
    context = command.make_context("ovsam", list(words), resilient_parsing=True)
    while isinstance(command, TyperGroup) and words and re.match(r"[a-z]", words[0]):
        found = command.get_command(context, words[0])
        assert found is not None, words
        parent, command, words = context, found, words[1:]
        context = command.make_context(
            str(command.name), list(words), parent=parent, resilient_parsing=True
        )
    return command, context, words


@pytest.mark.parametrize("one", OVSAM, ids=name_of)
def test_ovsam_command_parses(one: Shown) -> None:
    command, _, arguments = find_command(one.arguments)
    if arguments[:1] == ["--install-completion"]:
        return  # does its work while it is parsed
    command.make_context(str(command.name), arguments)  # raises what a user would see


def test_no_command_is_overlooked() -> None:
    """Found once more, by lines alone: what begins like a command is one of those that are read."""
    line = re.compile(
        r"^\s*(?:\$ |srun |torchrun .*)?(ovsam|make [a-z-]+$|python\S* \S+\.py)(?: |$)"
    )
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
        seen = [found for found in text.splitlines() if line.match(found.split("#")[0].rstrip())]
        assert len(seen) <= len(find_shown(document)), (document, seen)
        for found in seen:
            (word,) = line.match(found.split("#")[0].rstrip()).groups()  # type: ignore[union-attr]
            assert any(one.program == word.split()[0] for one in find_shown(document)), found


EXAMPLE = """
```sh
ovsam a     # needs a GPU
ovsam b && make c
# needs hours
torchrun --no-python --nproc-per-node 8 ovsam d \\
  --e "f # g"
```

    A=1 srun ovsam h   # needed by none

- a list

    ovsam is prose here

```yaml
  command: [ovsam, i, "j"]   # needs Kubernetes
```

```python
ovsam = "no command"
```
"""


def test_blocks_of_every_kind_are_read() -> None:
    found = [(" ".join(one.words), one.needs) for one in find_shown("x", EXAMPLE)]
    gpu, hours, cluster = "(a |\\d+ )?GPUs?", "hours", "Slurm|torchrun|Kubernetes"
    assert found == [
        ("ovsam a", gpu),
        ("ovsam b", ""),
        ("make c", ""),
        ("ovsam d --e f # g", hours),
        ("ovsam h", ""),
        ("ovsam i j", cluster),
    ]
    with pytest.raises(AssertionError, match="none of"):
        find_shown("x", "```\novsam a  # needs luck\n```")


def test_every_need_is_one_of_some_command() -> None:
    assert {one.needs for one in SHOWN} - {""} == set(NEEDS)


def test_blocks_of_shells_hold_nothing_else() -> None:
    """A program that is not looked at would pass unseen."""
    others = r"#|$|(\./)?scripts/|unzip|npm"
    for document in DOCUMENTS:
        for language, lines in find_blocks((ROOT / document).read_text(encoding="utf-8")):
            if language in ("sh", "bash", "shell", "console"):
                shown = find_shown("x", "\n".join([f"```{language}", *lines, "```"]))
                plain = [one for one in lines if not re.match(others, one.strip())]
                assert len(shown) == len(plain), (document, plain)


def test_documents_show_every_training_command() -> None:
    shown = {one.words[1:3] for one in find_shown("docs/training.md")}
    for name in ("scenes", "cache-teacher", "sam2clip", "clip2sam"):
        assert ("train", name) in shown


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_are_there(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    script = (ROOT / "scripts" / "train-tiny").read_text(encoding="utf-8")
    calls = [one.split()[1:] for one in find_inline(document) if one.startswith("make ")]
    calls += [one.arguments for one in find_shown(document) if one.program == "make"]
    for words in calls:
        for word in words:
            name, equals, _ = word.partition("=")
            if equals:
                assert name in script, name
            else:
                assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name


@pytest.mark.parametrize("one", [one for one in SHOWN if one.program == "make"], ids=name_of)
def test_make_knows_what_to_do(one: Shown) -> None:
    """With `make -n`, which runs nothing: all of them install things, or take long."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    assert one.needs, one.words
    words = [word for word in one.arguments if "$" not in word]
    subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_programs_run_are_there(document: str) -> None:
    inline = [one.split() for one in find_inline(document)]
    for words in (*inline, *(list(one.words) for one in find_shown(document))):
        if re.fullmatch(r"python[\d.]*|bash", words[0]) and words[1:2] and "." in words[1]:
            assert words[1].startswith("-") or (ROOT / words[1]).exists(), words


@pytest.mark.parametrize("document", DOCUMENTS)
def test_packages_that_are_installed_have_their_extras(document: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / document).read_text(encoding="utf-8")
    for extras in re.findall(r"pip install [\"']?(?:ovsam-cli|\.)\[([\w,-]+)\]", text):
        for extra in extras.split(","):
            assert extra in project["optional-dependencies"], extra


def test_cvat_is_given_what_its_function_takes() -> None:
    """`-p NAME=TYPE:VALUE`; the function itself is tested by `make interop`."""
    tree = ast.parse((ROOT / "ovsam_cli/plugins/cvat.py").read_text(encoding="utf-8"))
    (create,) = [
        one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == "create"
    ]
    kinds = {one.arg: ast.unparse(one.annotation or ast.Constant(None)) for one in create.args.args}
    shown = [one for one in SHOWN if one.program == "cvat-cli"]
    assert {"--function-module", "--function-file"} <= {word for one in shown for word in one.words}
    for one in shown:
        for flag, value in zip(one.words, one.words[1:], strict=False):
            name, _, typed = value.partition("=")
            if flag == "-p":
                assert kinds[name] == typed.partition(":")[0]
            if flag == "--function-file":
                assert (ROOT / value).is_file()
            if flag == "--function-module":
                assert (ROOT / f"{value.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_within_sentences_are_commands(document: str) -> None:
    """Names lead to a command and its options are there; the rest may be left out or stand open."""
    for text in find_inline(document):
        words = text.split()
        if words[0] != "ovsam" or len(words) == 1 or not re.match(r"[a-z]", words[1]):
            continue
        command, context, left = find_command(words[1:])
        if isinstance(command, TyperGroup) and left:
            continue  # an open place, such as `ovsam export FORMAT`
        known = {name for one in command.get_params(context) for name in one.opts}
        known |= {name for one in command.get_params(context) for name in one.secondary_opts}
        for word in left:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, text


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (ROOT / document).parent.joinpath(target).exists(), target
