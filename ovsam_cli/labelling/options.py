"""What a user asks of a run, checked when made; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.shards import Shard
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.remote import parse_location

Engine = Literal["local", "ray"]
CompileMode = Literal["auto", "never", "always"]

# SAM's automatic generator cuts at 0.95 beside its predicted quality; without the latter the
# same cut loses many good masks, so it is a little lower here.


@dataclass(frozen=True, slots=True)
class GridOptions:
    """The automatic mode: a grid of points instead of prompts.

    Attributes:
        points_per_side: of the whole image; crops have fewer.
        crop_layers: layer l adds (2^l)^2 overlapping crops.
        nms_iou: masks that overlap more than this are one object.
    """

    points_per_side: int = 32
    crop_layers: int = 0
    nms_iou: float = 0.7


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How images are labelled, whatever the images, the model and the names are.

    Attributes:
        dtype: number format of the image encoder and decoder.
        batch_size: images a step; None is 1 on the CPU and 8 on CUDA.
        prompts_per_batch: prompts a decoder call; None is 16 on the CPU and 256 on CUDA.
        threads: of a process that computes on the CPU, where they decide the last digits; None is
            what the run in this folder began with, else torch's own number.
        compile: whether the network is compiled; `auto` does so for long runs on CUDA.
        fusion: `auto` joins both recognition branches, `head` and `clip` use one.
        min_score: lowest score of a name, in [0, 1].
        min_stability: lowest mask stability; None is 0 with prompts, the model's own in grid mode.
        min_predicted_iou: lowest IoU that the model predicts of its own masks; None is the model's
            own in grid mode and no filter with prompts. Only for models that predict it.
        min_region: islands and holes below this many pixels are removed; 0 keeps all.
        top_k: names kept with each object.
        unknown_name: category of objects below `min_score`; None drops them.
        masks: how masks stand in the COCO file.
        exif: whether photos are turned upright by their tag.
        num_previews: overlay pictures to write; None is all.
        report: whether the run ends with a report page.
        grid: the automatic mode, or None with prompts.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int | None = None
    prompts_per_batch: int | None = None
    threads: int | None = None
    compile: CompileMode = "auto"
    fusion: Literal["auto", "head", "clip"] = "auto"
    min_score: float = 0.0
    min_stability: float | None = None
    min_predicted_iou: float | None = None
    min_region: int = 0
    top_k: int = 5
    unknown_name: str | None = None
    masks: Literal["rle", "polygon", "rle-uncompressed", "none"] = "rle"
    exif: Literal["apply", "ignore"] = "apply"
    num_previews: int | None = 0
    report: bool = True
    grid: GridOptions | None = None

    def stability_cut(self, of_grid: float) -> float:
        """Lowest mask stability of this run; `of_grid` is the model's in grid mode."""
        if self.min_stability is not None:
            return self.min_stability
        return 0.0 if self.grid is None else of_grid

    def predicted_iou_cut(self, of_grid: float | None) -> float | None:
        """Lowest predicted IoU of this run, None for no filter.

        Args:
            of_grid: the model's in grid mode; None for a model that predicts none.
        """
        if of_grid is None or self.min_predicted_iou is not None:
            return self.min_predicted_iou
        return None if self.grid is None else of_grid


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Everything `ovsam label` was asked for.

    Attributes:
        images: folders, files, globs, @list files.
        vocabulary: bundled name, file, or names with commas.
        out: output folder; of a run that sends its results to a URL, its working folder.
        prompts: prompt file, or None for the grid.
        model: bundled or published name, file, or folder of official files.
        devices: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; several with commas, `all` for every
            CUDA device.
        text_embeddings: file of `ovsam embed-vocab` or official class embeddings; None builds
            what is missing.
        base_names: vocabulary of names seen in training; None takes the weights' own.
        restart: forget what this folder's run has done.
        overwrite: use a folder that holds other files.
        retry_failed: take the images again that failed in an earlier start.
        max_failures: stop once more images failed than this, earlier starts included; None never
            stops.
        shard: the part of the run to do here, in a folder of its own within `out`; None does all.
        engine: processes of this machine, or a Ray cluster.
        address: of the Ray cluster; None starts one here.
        send_to: URL of the folder for the result files; None leaves them in `out`.
        command: what the command line came to, for run.json; None where there was none.
        options: how images are labelled.
    """

    images: tuple[str, ...]
    vocabulary: str
    out: Path
    prompts: str | None = None
    model: str = "rn50x16"
    devices: str = "auto"
    text_embeddings: Path | None = None
    base_names: str | None = None
    restart: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    max_failures: int | None = None
    shard: Shard | None = None
    engine: Engine = "local"
    address: str | None = None
    send_to: str | None = None
    command: Mapping[str, JsonValue] | None = None
    options: LabelOptions = LabelOptions()


def parse_output(out: str, state: Path | None) -> tuple[Path, str | None]:
    """`--out` and `--state` -> the folder to work in, and the URL to send results to.

    Args:
        out: path or URL.
        state: working folder for a URL; None makes one in the cache, the same for the same URL.

    Raises:
        InputError: a working folder for results that stay on this machine.
    """
    location = parse_location(out)
    if isinstance(location, Path):
        if state is not None:
            raise InputError(f"--state {state}: only for an --out that is a URL, not {out!r}")
        return location, None
    if state is None:
        from ovsam_cli.model.hub import cache_folder

        state = cache_folder() / "runs" / hashlib.sha256(location.encode()).hexdigest()[:16]
    return state, location


def parse_previews(text: str) -> int | None:
    """`all` -> None, else a count of at least 0.

    Raises:
        InputError: neither `all` nor such a number.
    """
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit():
        raise InputError(f"--previews {text!r}: expected a number or 'all'")
    return int(text)


def parse_size(option: str, text: str) -> int | None:
    """`auto` -> None, else a number of at least 1.

    Raises:
        InputError: neither `auto` nor such a number.
    """
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise InputError(f"{option} {text!r}: expected a number of at least 1 or 'auto'")
    return int(text)
