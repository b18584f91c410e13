"""Commands whose modules are imported when they are asked for, so that `ovsam --help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from ovsam_cli.cli.console import EXIT_CODE_HELP
from ovsam_cli.cli.usage import PlainCommand, PlainGroup

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """One command before its module is imported.

    Attributes:
        help: first line of its own help, which a test compares.
        module: of its function, or of its Typer app where it has commands of its own.
        name: of that function or app.
        shows_exit_codes: below its help.
    """

    help: str
    module: str
    name: str
    shows_exit_codes: bool = False

    def load(self, name: str) -> Command:
        """Import the module and build the command under this name."""
        found = getattr(import_module(self.module), self.name)
        app = found if isinstance(found, typer.Typer) else self._wrap(name, found)
        app.rich_markup_mode = None
        app.info.cls = PlainGroup
        for info in app.registered_commands:
            info.cls = PlainCommand
            info.context_settings = HELP_OPTIONS
        is_group = app is found
        command = typer.main.get_group(app) if is_group else typer.main.get_command(app)
        command.name = name
        return command

    def _wrap(self, name: str, function: Callable[..., None]) -> typer.Typer:
        app = typer.Typer(add_completion=False)
        app.command(name, epilog=EXIT_CODE_HELP if self.shows_exit_codes else None)(function)
        return app


COMMANDS = {
    "label": LazyCommand(
        "Segment and name every prompted object; run again to go on where a run stopped.",
        "ovsam_cli.cli.label",
        "label",
        shows_exit_codes=True,
    ),
    "embed-vocab": LazyCommand(
        "Encode the names of a vocabulary; names encoded before come from the cache.",
        "ovsam_cli.cli.embed_vocab",
        "embed_vocab",
    ),
    "demo": LazyCommand(
        "Click on images in a web page: masks and names at once, COCO to download.",
        "ovsam_cli.cli.demo",
        "demo",
    ),
    "eval": LazyCommand(
        "Measure masks, names and detections against ground truth.",
        "ovsam_cli.cli.evaluate",
        "eval_app",
    ),
    "models": LazyCommand(
        "List, download, verify and convert weights.", "ovsam_cli.cli.models", "models_app"
    ),
    "train": LazyCommand(
        "Make scenes, and train every stage of a model.", "ovsam_cli.cli.train", "train_app"
    ),
    "export": LazyCommand(
        "Write results of runs in other forms, and join shards.",
        "ovsam_cli.cli.export",
        "export_app",
    ),
    "bench": LazyCommand(
        "Compare with plain baselines in turns; exit 1 if a result does not agree.",
        "ovsam_cli.cli.bench",
        "bench",
    ),
    "doctor": LazyCommand(
        "Look at programs, devices, weights and folders; exit 1 when something needed is broken.",
        "ovsam_cli.cli.doctor",
        "doctor",
    ),
}


class LazyGroup(PlainGroup):
    """The commands of `COMMANDS`; the group's own `commands` are empty ones of the same names."""

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import and build a command; None for a name that is none."""
        found = COMMANDS.get(cmd_name)
        return None if found is None else found.load(cmd_name)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write names and first lines of help, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.help) for name, one in COMMANDS.items()])


def add_names(app: typer.Typer) -> None:
    """Give the app an empty command of each name, for suggestions and completion."""
    for name, command in COMMANDS.items():
        app.command(name, help=command.help)(_nothing)


def _nothing() -> None:
    """Stand for a command that is not imported yet."""
