"""Write docs/cli.md: the help of every command, as the program itself gives it.

    python scripts/make_cli_reference.py

A test compares the file with what this makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperGroup

from ovsam_cli.cli.main import build_app

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
WIDTH = 100
HEAD = """# Commands

Made by `python scripts/make_cli_reference.py` from the program; `ovsam COMMAND --help` says the
same. Every option can stand in a file and in the environment too: [Settings](settings.md).
"""


def main() -> None:
    """Write the file."""
    TARGET.write_text(make_reference(), encoding="utf-8")


def make_reference() -> str:
    """The whole page."""
    app = typer.main.get_command(build_app())
    parts = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in iter_help(app, "ovsam", None)]
    return "\n".join([HEAD, *parts])


def iter_help(
    command: typer._click.Command, name: str, parent: typer._click.Context | None
) -> Iterator[tuple[str, str]]:
    """Full name and help of a command, then of those below it."""
    context = command.make_context(
        name.rpartition(" ")[2],
        [],
        parent=parent,
        resilient_parsing=True,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    lines = command.get_help(context).splitlines()
    yield name, "\n".join(line.rstrip() for line in lines).strip()
    if isinstance(command, TyperGroup):
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found is not None
            yield from iter_help(found, f"{name} {one}", context)


if __name__ == "__main__":
    main()
