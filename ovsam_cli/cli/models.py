"""`ovsam models`: list, download, verify and convert weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ovsam_cli.cli.console import Console, one_line_errors

models_app = typer.Typer(help="List, download, verify and convert weights.", no_args_is_help=True)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]


@models_app.command("list")
def list_models() -> None:
    """Show the known models and which of them are on this machine."""
    from ovsam_cli.model.hub import list_models as find_known_models

    console = Console()
    with one_line_errors(console):
        for model in find_known_models():
            place = str(model.path) if model.path else "not on this machine"
            console.result(f"{model.name:<10} {model.description}\n{'':<10} {place}")


@models_app.command()
def download(
    name: Annotated[str, typer.Argument(help="A name from `ovsam models list`.")],
    quiet: Quiet = False,
) -> None:
    """Download weights, check them and say where they are."""
    from ovsam_cli.model.hub import download_model

    console = Console(quiet=quiet)
    with one_line_errors(console):
        for path in download_model(name, on_message=console.say):
            console.result(str(path))


@models_app.command()
def verify(
    source: Annotated[str, typer.Argument(help="A model name, a file, or a folder of files.")],
) -> None:
    """Load weights strictly and print what they are; exit 4 when something is wrong."""
    from ovsam_cli.model.checkpoint import verify_model

    console = Console()
    with one_line_errors(console):
        console.result(verify_model(source, on_message=console.say))


@models_app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="Official file, folder with an official set, or a model of ours.")
    ],
    target: Annotated[Path, typer.Argument(help="The file to write: .safetensors, or .pth.")],
    official: Annotated[
        bool, typer.Option("--official", help="Official key names, as for a .pth target.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the target if it exists.")] = False,
) -> None:
    """Write weights as one safetensors file with its configuration, or in the official layout."""
    from ovsam_cli.model.checkpoint import convert_model
    from ovsam_cli.model.official_export import OFFICIAL_SUFFIX, export_official

    console = Console()
    with one_line_errors(console):
        write = export_official if official or target.suffix == OFFICIAL_SUFFIX else convert_model
        write(source, target, overwrite=overwrite, on_message=console.say)
        console.result(str(target))
