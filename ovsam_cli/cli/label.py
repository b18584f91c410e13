"""`ovsam label`: images and prompts to a COCO file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors

MODEL, NAMES, FILES = "Model and speed", "Masks and names", "Output files"
SCALE = "Several devices and machines"
RESUME = "Run the same command again to go on."
# Schedulers follow their signal by SIGKILL after a while; a terminal's user wants it sooner.
SECONDS_TO_STOP = 4.0

Dtype = Literal["auto", "float32", "bfloat16"]
CompileMode = Literal["auto", "never", "always"]
FusionMode = Literal["auto", "head", "clip"]
MaskFormat = Literal["rle", "polygon", "rle-uncompressed", "none"]
ExifRule = Literal["apply", "ignore"]
Engine = Literal["local", "ray"]


def label(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(help="Folders (searched recursively), files, globs, URLs, @list.txt."),
    ],
    vocabulary: Annotated[
        str,
        typer.Option("--vocab", help='Bundled name (coco, lvis, ...), file, or "cat, dog, zebra".'),
    ],
    out: Annotated[str, typer.Option(help="Folder, or URL, for annotations.json and the rest.")],
    prompts: Annotated[
        str | None, typer.Option(help="Prompt file: our JSON or JSON Lines, or a COCO file.")
    ] = None,
    grid: Annotated[
        int, typer.Option(min=1, max=256, help="Without --prompts: points a side of the grid.")
    ] = 32,
    crop_layers: Annotated[
        int, typer.Option(min=0, max=3, help="Grid: also look at crops, 2^layer a side.")
    ] = 0,
    nms_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Grid: masks that overlap more are one.")
    ] = 0.7,
    model: Annotated[
        str,
        typer.Option(
            help="rn50x16, tiny (bundled, offline, for trying), or a weights file.",
            rich_help_panel=MODEL,
        ),
    ] = "rn50x16",
    devices: Annotated[
        str,
        typer.Option(
            help="auto, cpu, mps, cuda, cuda:0; several: cuda:0,cuda:1; all: every CUDA device.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    dtype: Annotated[
        Dtype, typer.Option(help="Number format of the network.", rich_help_panel=MODEL)
    ] = "auto",
    batch_size: Annotated[
        str,
        typer.Option(help="Images a step; auto: 1 on the CPU, 8 on CUDA.", rich_help_panel=MODEL),
    ] = "auto",
    prompts_per_batch: Annotated[
        str,
        typer.Option(
            help="Prompts a decoder call; auto: 16 on the CPU, 256 on CUDA.", rich_help_panel=MODEL
        ),
    ] = "auto",
    threads: Annotated[
        str,
        typer.Option(
            help="CPU threads a process; auto: as the run began, else all cores. Last digits of "
            "results on a CPU depend on it.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    compile_mode: Annotated[
        CompileMode,
        typer.Option(
            "--compile",
            help="Compile the network; auto: on CUDA, for more than five minutes of work.",
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    fusion: Annotated[
        FusionMode,
        typer.Option(help="Recognition by both branches, or one.", rich_help_panel=NAMES),
    ] = "auto",
    base_names: Annotated[
        str | None,
        typer.Option(
            help="Names seen in training, as a vocabulary; default: the weights' own.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    text_embeddings: Annotated[
        Path | None,
        typer.Option(
            help="File of `ovsam embed-vocab`, or official class embeddings; default: made here.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Lowest score of a name.", rich_help_panel=NAMES)
    ] = 0.0,
    min_stability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest mask stability; default 0 with prompts, the model's (0.9) in grid mode.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    min_predicted_iou: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest IoU that the model predicts of its own masks, for models with such a "
            "head; default in grid mode: the model's (0.88); with prompts no filter.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    min_region: Annotated[
        int,
        typer.Option(
            min=0, help="Remove islands and holes below this many pixels.", rich_help_panel=NAMES
        ),
    ] = 0,
    top_k: Annotated[
        int, typer.Option(min=0, help="Names kept with each object.", rich_help_panel=NAMES)
    ] = 5,
    unknown_name: Annotated[
        str | None,
        typer.Option(
            help="Category for objects below --min-score, instead of dropping them.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    masks: Annotated[MaskFormat, typer.Option(help="Mask format.", rich_help_panel=FILES)] = "rle",
    exif: Annotated[
        ExifRule, typer.Option(help="Turn photos upright by their tag.", rich_help_panel=FILES)
    ] = "apply",
    previews: Annotated[
        str, typer.Option(help="Overlay pictures: a number, or all.", rich_help_panel=FILES)
    ] = "0",
    shard: Annotated[
        str | None,
        typer.Option(
            help="Only part I of N, counted from 0, as I/N; auto takes both from torchrun, Slurm "
            "or Kubernetes, auto/N the number only. `ovsam export coco` joins the parts.",
            rich_help_panel=SCALE,
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="Processes of this machine, or a Ray cluster.", rich_help_panel=SCALE),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: auto, or HOST:PORT; default: started here.", rich_help_panel=SCALE
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Working folder of a run whose --out is a URL; default: in the cache.",
            rich_help_panel=FILES,
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write report.html at the end.", rich_help_panel=FILES)
    ] = True,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what this folder's run has done.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take images again that failed before.")
    ] = False,
    max_failures: Annotated[
        int | None,
        typer.Option(min=0, help="Stop (exit 1) once more images failed; default: never."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1, not 3, when images failed.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Use a folder that holds other files.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, plan and estimate; label nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Segment and name every prompted object; run again to go on where a run stopped."""
    console = Console(quiet=quiet, verbose=verbose, as_json=as_json)
    with one_line_errors(console, how_to_resume=RESUME, seconds_to_stop=SECONDS_TO_STOP) as signals:
        from ovsam_cli.cli.config_file import describe_settings
        from ovsam_cli.cli.label_plan import show_plan
        from ovsam_cli.cli.label_run import run_label
        from ovsam_cli.labelling import options as asked
        from ovsam_cli.labelling.shards import parse_shard

        options = asked.LabelOptions(
            dtype=dtype,
            batch_size=asked.parse_size("--batch-size", batch_size),
            prompts_per_batch=asked.parse_size("--prompts-per-batch", prompts_per_batch),
            threads=asked.parse_size("--threads", threads),
            compile=compile_mode,
            fusion=fusion,
            min_score=min_score,
            min_stability=min_stability,
            min_predicted_iou=min_predicted_iou,
            min_region=min_region,
            top_k=top_k,
            unknown_name=unknown_name,
            masks=masks,
            exif=exif,
            num_previews=asked.parse_previews(previews),
            report=report,
            grid=None if prompts else asked.GridOptions(grid, crop_layers, nms_iou),
        )
        folder, send_to = asked.parse_output(out, state)
        request = asked.LabelRequest(
            images=tuple(images),
            vocabulary=vocabulary,
            prompts=prompts,
            out=folder,
            send_to=send_to,
            model=model,
            devices=devices,
            text_embeddings=text_embeddings,
            base_names=base_names,
            restart=restart,
            overwrite=overwrite,
            retry_failed=retry_failed,
            max_failures=max_failures,
            shard=parse_shard(shard, os.environ),
            engine=engine,
            address=address,
            command=describe_settings(ctx),
            options=options,
        )
        if dry_run:
            raise typer.Exit(show_plan(console, request))
        raise typer.Exit(run_label(console, signals, request, strict=strict))
