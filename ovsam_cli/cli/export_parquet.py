"""`ovsam export parquet`: a run as Parquet parts."""

from __future__ import annotations

from typing import Annotated

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.progress import count_progress


def parquet(
    runs: Annotated[
        list[str], typer.Argument(help="Output folders of `ovsam label`: a run, or shards of one.")
    ],
    out: Annotated[str, typer.Option(help="Folder, or URL, for part-00000.parquet and so on.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Take unfinished runs, and leave out missing shards.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")] = False,
) -> None:
    """One row an image, in parts of 512 images; see docs/running-at-scale.md for the columns."""
    console = Console(quiet=quiet)
    with one_line_errors(console, how_to_resume="Nothing is complete; run it again."):
        from ovsam_cli.labelling.content_reading import open_content, read_content_settings
        from ovsam_cli.labelling.sent_runs import fetch_runs
        from ovsam_cli.outputs.folders import open_folder
        from ovsam_cli.outputs.parquet import ParquetHeader, check_new_parts, write_parts

        check_new_parts(folder := open_folder(out))
        with fetch_runs(runs) as fetched, count_progress(console) as on_progress:
            content = open_content(fetched, partial=partial)
            settings = read_content_settings(content, fetched[0])
            header = ParquetHeader(content.categories, content.coco, settings)
            counts = write_parts(
                folder,
                content.iter_results(),
                header,
                on_part=lambda done: on_progress("images", done, content.num_images),
            )
        console.say(f"{counts.num_objects} objects in {counts.num_images} images")
        console.result(out)
        if counts.num_objects == 0:
            raise typer.Exit(ExitCode.NOTHING_WRITTEN)
