"""Options that commands of `ovsam eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RESUME = "Run the same command again to go on."
STOPPING = "\nfinishing the image in hand; once more stops at once\n"
SECONDS_TO_STOP = 4.0
MODEL, RULES = "Model", "Protocol"

Dataset = Annotated[
    str,
    typer.Argument(
        help="COCO or LVIS file; folder with annotations/ or of SA-1B; coco or lvis: below data/."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for metrics.json, report.html and the journal.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images; default: the layout's.")]
Prompt = Annotated[
    str,
    typer.Option(help="box, point (the middle), points:K or random-point.", rich_help_panel=RULES),
]
Split = Annotated[
    str,
    typer.Option(
        help="Vocabulary with base and novel names; auto: COCO's, LVIS's; none.",
        rich_help_panel=RULES,
    ),
]
Model = Annotated[str, typer.Option(help="As of `ovsam label`.", rich_help_panel=MODEL)]
Names = Annotated[
    str | None,
    typer.Option(
        "--vocab", help="Names that compete; default: the data's own.", rich_help_panel=MODEL
    ),
]
Fusion = Annotated[
    Literal["auto", "head", "clip"],
    typer.Option(help="Recognition by both branches, or one.", rich_help_panel=MODEL),
]
Devices = Annotated[str, typer.Option(help="auto, cpu, mps, cuda, cuda:0.", rich_help_panel=MODEL)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Number format of the network.", rich_help_panel=MODEL),
]
MaxImages = Annotated[int | None, typer.Option(min=1, help="The first ones; default: all.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images an encoder run; default: 1, on CUDA 8.",
        rich_help_panel=MODEL,
    ),
]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what is done.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Use a folder that holds other files.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The figures as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")]
