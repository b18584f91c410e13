"""`ovsam train`: make training scenes, and train every stage of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors
from ovsam_cli.cli.train_clip2sam import clip2sam
from ovsam_cli.cli.train_sam2clip import cache_teacher, sam2clip

train_app = typer.Typer(help="Make scenes, and train every stage of a model.", no_args_is_help=True)
train_app.command("cache-teacher")(cache_teacher)
train_app.command("sam2clip")(sam2clip)
train_app.command("clip2sam")(clip2sam)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]


@train_app.command()
def scenes(
    out: Annotated[Path, typer.Argument(help="Folder for images and instances.json.")],
    sources: Annotated[Path, typer.Option(help="Folder of the downloaded drawings and models.")],
    kind: Annotated[
        Literal["composed", "rendered", "pages"],
        typer.Option(help="Drawings, 3D models, or crowded pages of named drawings."),
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
        from ovsam_cli.training.scenes.compose import compose_numbered
        from ovsam_cli.training.scenes.composed import compose_scenes, write_composed_attributions
        from ovsam_cli.training.scenes.pages import compose_numbered_page
        from ovsam_cli.training.scenes.render import render_scenes
        from ovsam_cli.training.scenes.sidecars import SceneRange, assemble_annotations
        from ovsam_cli.training.scenes.sources import download_sources

        download_sources(sources, on_package_done=lambda one: console.say(f"{one.package} ready"))
        wanted = SceneRange(count, start, stride)

        def on_image_done(index: int) -> None:
            console.say(f"scene {index}")

        if kind == "rendered":
            written = render_scenes(
                sources, out, wanted, seed=seed, split=split, on_image_done=on_image_done
            )
        else:
            compose = compose_numbered if kind == "composed" else compose_numbered_page
            written = compose_scenes(
                sources, out, wanted, compose, seed=seed, split=split, on_image_done=on_image_done
            )
        assemble_annotations(out)
        if kind == "rendered":
            write_attributions(sources, out)
        else:
            write_composed_attributions(out, split)
        console.result(f"{written} scenes written to {out}")
