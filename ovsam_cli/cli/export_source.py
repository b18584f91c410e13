"""What `ovsam export` reads, and the way from there to a written and summed-up export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.progress import count_progress

if TYPE_CHECKING:
    from ovsam_cli.labelling.content_reading import Content
    from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
    from ovsam_cli.outputs.exporting import ExportSummary, ExportWriter, Loss
    from ovsam_cli.structures import ImageResult

OpenWriter = Callable[[Sequence["CocoCategory"]], AbstractContextManager["ExportWriter"]]


@dataclass(frozen=True, slots=True)
class Source:
    """Results to export.

    Attributes:
        categories: that the results' category ids stand for.
        coco: form and notices of their COCO file.
        num_images: that have a result.
        iter_results: the results by rising image id; asked for once.
        find_losses: what was passed over while they were read.
        notes: what else a person should know.
    """

    categories: tuple[CocoCategory, ...]
    coco: CocoOptions
    num_images: int
    iter_results: Callable[[], Iterator[ImageResult]]
    find_losses: Callable[[], tuple[Loss, ...]]
    notes: tuple[str, ...] = ()


@contextmanager
def open_source(
    sources: Sequence[str], *, partial: bool, image_root: Path | None = None
) -> Iterator[Source]:
    """Open runs or shards of `ovsam label`, Parquet parts, or one COCO file.

    Raises:
        InputError: none of these, or not to be read.
    """
    if len(sources) == 1 and Path(sources[0]).is_file():
        from ovsam_cli.outputs.coco import CocoOptions
        from ovsam_cli.outputs.coco_reader import open_coco

        with open_coco(Path(sources[0]), image_root=image_root) as coco:
            yield Source(
                categories=coco.categories,
                coco=CocoOptions(description=coco.description),
                num_images=coco.num_images,
                iter_results=coco.iter_results,
                find_losses=lambda: coco.losses,
            )
        return
    from ovsam_cli.labelling.content_reading import open_content
    from ovsam_cli.labelling.sent_runs import fetch_runs

    with fetch_runs(sources) as fetched:
        content = open_content(fetched, partial=partial)
        yield Source(
            categories=content.categories,
            coco=content.coco,
            num_images=content.num_images,
            iter_results=content.iter_results,
            find_losses=lambda: (),
            notes=tuple(_find_gaps(content)),
        )


def _find_gaps(content: Content) -> Iterator[str]:
    from ovsam_cli.labelling.run_reading import RunContent

    if isinstance(content, RunContent):
        if content.missing_shards:
            yield f"left out: shards {', '.join(map(str, content.missing_shards))}"
        if content.num_missing:
            yield f"left out: {content.num_missing} images that are not labelled yet"


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What every format's command was told.

    Attributes:
        source: runs, shards, Parquet parts, or a COCO file.
        out: file or folder to write.
        partial: unfinished runs and missing shards are taken as they are.
        image_root: folder of the images; None takes their places from the source.
        overwrite: an earlier export may be replaced.
        quiet: errors only.
        is_file: `out` is one file, no folder.
    """

    source: Sequence[str]
    out: Path
    partial: bool
    image_root: Path | None
    overwrite: bool
    quiet: bool
    is_file: bool = False


def run_export(job: ExportJob, open_writer: OpenWriter) -> None:
    """Write an export; say what it holds and what got lost, in one line.

    Raises:
        typer.Exit: with the code of what went wrong, or where nothing was written.
    """
    console = Console(quiet=job.quiet)
    with one_line_errors(console, how_to_resume="Nothing was written; run it again."):
        if job.is_file:
            from ovsam_cli.outputs.files import check_new_file

            check_new_file(job.out, overwrite=job.overwrite)
        with open_source(job.source, partial=job.partial, image_root=job.image_root) as source:
            with open_writer(source.categories) as writer, count_progress(console) as on_progress:
                for done, result in enumerate(source.iter_results(), start=1):
                    writer.write(result)
                    on_progress("images", done, source.num_images)
            summary, losses = writer.summary, [*source.find_losses(), *writer.summary.losses]
            for note in source.notes:
                console.say(note)
        console.say(describe(summary, losses))
        console.result(str(job.out))
        if summary.num_objects == 0:
            raise typer.Exit(ExitCode.NOTHING_WRITTEN)


def describe(summary: ExportSummary, losses: Sequence[Loss]) -> str:
    """The summary line: what is there, and all that is not."""
    text = f"{summary.num_objects} objects in {summary.num_images} images"
    if summary.num_failed:
        text += f"; {summary.num_failed} failed images left out"
    lost = ", ".join(f"{loss.count} {loss.what}" for loss in losses)
    return f"{text}; " + (f"not in the export: {lost}" if lost else "nothing lost")


def describe_losses(source: Source) -> list[str]:
    """What was passed over while a source was read, a line each."""
    return [f"left out: {loss.count} {loss.what}" for loss in source.find_losses()]
