"""`ovsam export`: results of runs in other forms; `coco` joins shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.export_formats import add_formats
from ovsam_cli.cli.export_parquet import parquet
from ovsam_cli.cli.export_source import describe_losses, open_source

if TYPE_CHECKING:
    from ovsam_cli.outputs.coco import CocoSummary

export_app = typer.Typer(
    help="Write results of runs in other forms, and join shards.", no_args_is_help=True
)

Runs = Annotated[
    list[str],
    typer.Argument(
        help="Output folders of `ovsam label`: a run, shards of one, Parquet parts; or a COCO file."
    ),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Take unfinished runs, and leave out missing shards.")
]
MaskForm = Literal["rle", "polygon", "rle-uncompressed", "none"]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")]


@export_app.command("coco")
def coco(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="COCO file to write.")],
    masks: Annotated[
        MaskForm | None, typer.Option(help="Mask format; default: as the run's own file.")
    ] = None,
    partial: Partial = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there already.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Join runs and shards into one COCO file: the very file of the undivided run."""
    console = Console(quiet=quiet)
    with one_line_errors(console):
        from dataclasses import replace

        from ovsam_cli.outputs.coco import CocoWriter
        from ovsam_cli.outputs.files import check_new_file

        check_new_file(out, overwrite=overwrite)
        with open_source(runs, partial=partial) as source:
            options = source.coco if masks is None else replace(source.coco, masks=masks)
            with CocoWriter(out, categories=source.categories, options=options) as writer:
                for result in source.iter_results():
                    writer.write(result)
            for note in (*source.notes, *describe_losses(source)):
                console.say(note)
        _say_summary(console, writer.summary)
        console.result(str(out))
        if writer.summary.num_annotations == 0:
            raise typer.Exit(ExitCode.NOTHING_WRITTEN)


def _say_summary(console: Console, summary: CocoSummary) -> None:
    failed = f"; {summary.num_failed} failed images left out" if summary.num_failed else ""
    console.say(f"{summary.num_annotations} objects in {summary.num_images} images{failed}")
    if summary.num_masks_with_lost_holes:
        console.say(f"polygons lost the holes of {summary.num_masks_with_lost_holes} masks")


export_app.command("parquet")(parquet)
add_formats(export_app)
