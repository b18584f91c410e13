"""`ovsam train cache-teacher` and `ovsam train sam2clip`: a neck that makes SAM's features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors
from ovsam_cli.cli.progress import OnProgress, count_progress, is_first_rank
from ovsam_cli.cli.train_stage import RESUME, run_stage

if TYPE_CHECKING:
    from ovsam_cli.training.teacher_encoding import CacheEstimate

Images = Annotated[
    Path, typer.Argument(help="Folder of images, or SA-1B: train.txt of folders, sa_*.jpg in them.")
]
Precision = Annotated[
    Literal["float32", "bfloat16"], typer.Option(help="Number format of the computation.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]


def cache_teacher(
    images: Images,
    out: Annotated[Path, typer.Argument(help="Folder for the features, 2 MiB an image.")],
    checkpoint: Annotated[Path, typer.Option(help="SAM's file, such as sam_vit_h_4b8939.pth.")],
    teacher: Annotated[
        Literal["vit_b", "vit_l", "vit_h"] | None,
        typer.Option(help="Refuse a checkpoint of another size."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (every GPU), cpu, or GPU numbers: 0,1; a process each.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 1,
    shard_size: Annotated[int, typer.Option(min=1, help="Images a file.")] = 128,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 4,
    precision: Precision = "float32",
    quiet: Quiet = False,
) -> None:
    """Compute SAM's features of images once; what is there already is left out."""
    console = Console(quiet=quiet or not is_first_rank())
    with one_line_errors(console, how_to_resume=RESUME):
        from ovsam_cli.training import teacher_processes
        from ovsam_cli.training.teacher_encoding import EncodingOptions
        from ovsam_cli.training.teacher_images import find_teacher_images

        options = EncodingOptions(
            out, checkpoint, precision, batch, shard_size, num_threads=workers
        )
        with count_progress(console) as on_progress:
            counted = _ImageCount(console, on_progress)
            summary = teacher_processes.cache_teacher(
                find_teacher_images(images),
                options,
                teacher_processes.parse_devices(device),
                teacher_processes.Callbacks(counted.start, counted.count, console.say),
                teacher_name=teacher,
            )
        if summary.num_skipped:
            console.say(f"{summary.num_skipped} images failed: see {out / 'skipped.jsonl'}")
        if is_first_rank():
            console.result(str(out))
        raise typer.Exit(ExitCode.SOME_FAILED if summary.num_skipped else ExitCode.FINISHED)


class _ImageCount:
    """Counts images for the progress."""

    def __init__(self, console: Console, on_progress: OnProgress) -> None:
        self.console, self.on_progress = console, on_progress
        self.done = self.total = 0

    def start(self, estimate: CacheEstimate) -> None:
        """Say what is to be done."""
        self.console.say(estimate.describe())
        self.done, self.total = estimate.num_images - estimate.num_left, estimate.num_images

    def count(self, has_features: bool) -> None:
        """One image more, with features or without."""
        self.done += 1
        self.on_progress("images", self.done, self.total)


def sam2clip(
    images: Images,
    out: Annotated[Path, typer.Argument(help="Folder for checkpoints, log and the neck.")],
    trunk: Annotated[Path, typer.Option(help="RN50x16.pt, or a weights file with the trunk.")],
    teacher_cache: Annotated[
        Path | None,
        typer.Option(help="Features: of cache-teacher, or a folder of *_vit_h_cache.pth."),
    ] = None,
    teacher_checkpoint: Annotated[
        Path | None,
        typer.Option(help="SAM's file: runs in every step when there is no --teacher-cache."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 24,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Instead of --epochs.")] = None,
    max_time: Annotated[
        float | None, typer.Option(min=1, help="Stop after so many seconds; run again to go on.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a process at a time.")] = 2,
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Such batches a step; default: 16 images in all processes."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-12, help="Default: 1e-4 for 16 images a step, in proportion."),
    ] = None,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Of the linear rise.")] = 500,
    precision: Precision = "float32",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:1; several with torchrun.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 2,
    val_count: Annotated[int, typer.Option(min=0, help="Images held out for validation.")] = 0,
    val_steps: Annotated[int, typer.Option(min=0, help="Steps between validations.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Train a neck on a frozen CLIP trunk to make SAM's features; run again to go on."""
    console = Console(quiet=quiet or not is_first_rank())
    with one_line_errors(console, how_to_resume=RESUME):
        from ovsam_cli.training.sam2clip import DistillRecipe
        from ovsam_cli.training.sam2clip_inputs import Sam2ClipOptions
        from ovsam_cli.training.sam2clip_run import train_sam2clip

        options = Sam2ClipOptions(
            images=images,
            out=out,
            trunk=trunk,
            teacher_cache=teacher_cache,
            teacher_checkpoint=teacher_checkpoint,
            recipe=replace(DistillRecipe(), epochs=epochs, warmup_steps=warmup_steps),
            max_steps=max_steps,
            max_seconds=max_time,
            images_per_batch=batch,
            accumulate=accumulate,
            learning_rate=learning_rate,
            precision=precision,
            device=device,
            num_workers=workers,
            num_validation=val_count,
            validation_steps=val_steps,
            seed=seed,
        )
        run_stage(console, lambda listeners: train_sam2clip(options, listeners))
