"""The `ovsam` command: one Typer app, one file a command."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from ovsam_cli import __version__
from ovsam_cli.cli.console import EXIT_CODE_HELP, open_standard_streams
from ovsam_cli.cli.lazy import HELP_OPTIONS, LazyGroup, add_names

HELP = "Label images with Open-Vocabulary SAM: a mask and a name for every prompted object."


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ovsam {__version__}")
        raise typer.Exit()


def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options before the command."""


def build_app() -> typer.Typer:
    """The app with all its commands."""
    app = typer.Typer(
        name="ovsam",
        cls=LazyGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=HELP_OPTIONS,
    )
    app.callback(help=HELP, epilog=EXIT_CODE_HELP)(_global_options)
    add_names(app)
    return app


def run() -> None:
    """Run the command line."""
    open_standard_streams()
    # Pillow warns of large images and of damaged tags, which are read all the same; a terminal is
    # no place for it.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    build_app()()
