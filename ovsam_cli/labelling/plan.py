"""Check everything a user can mend before any weight is loaded or image opened; no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.image_paths import find_images
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.model.known_models import DESCRIPTIONS
from ovsam_cli.prompts import PromptSource, read_prompts
from ovsam_cli.structures import ImageRecord
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary

DEVICE_PATTERN = re.compile(r"auto|all|cpu|mps|cuda(:\d+)?")
ONE_OF_SEVERAL = re.compile(r"cpu|mps|cuda:\d+")
GRID_OBJECTS_PER_IMAGE = 100
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
NUM_LISTED = 5  # unmatched prompts named one by one before the rest is counted


@dataclass(frozen=True, slots=True)
class PlanSize:
    """How much work a plan is: images encoded, prompts decoded, masks written, about."""

    num_views: int
    num_prompts: int
    num_masks: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A request whose parts were found and read.

    Attributes:
        request: what was asked for.
        records: the images, in the order of their ids.
        vocabulary: the names to choose from.
        base_vocabulary: names seen in training, when given by hand.
        prompts: the prompt file, or None in grid mode.
        unmatched: images that have prompts but are not among `records`.
        size: of a plan whose images and prompts were left out; None counts them.
    """

    request: LabelRequest
    records: tuple[ImageRecord, ...]
    vocabulary: Vocabulary
    base_vocabulary: Vocabulary | None
    prompts: PromptSource | None
    unmatched: tuple[str, ...]
    size: PlanSize | None = None

    def without_images(self) -> RunPlan:
        """The same plan, small, for a process that is told of its images one by one."""
        size = PlanSize(self.num_views, self.num_prompts, self.num_masks)
        return replace(self, records=(), prompts=None, unmatched=(), size=size)

    @property
    def out(self) -> Path:
        """Where this run writes: a shard has a folder of its own within the one asked for."""
        shard = self.request.shard
        return self.request.out if shard is None else self.request.out / shard.folder_name

    @property
    def send_to(self) -> str | None:
        """URL for the result files of this run or shard."""
        request = self.request
        if request.send_to is None or request.shard is None:
            return request.send_to
        return f"{request.send_to.rstrip('/')}/{request.shard.folder_name}"

    @property
    def num_views(self) -> int:
        """About how many images are encoded: crops of the grid count, of small images too."""
        if self.size is not None:
            return self.size.num_views
        grid = self.request.options.grid
        if self.prompts is not None or grid is None:
            return len(self.records)
        return len(self.records) * sum((1 << layer) ** 2 for layer in range(grid.crop_layers + 1))

    @property
    def num_prompts(self) -> int:
        """Prompts of the whole run; in grid mode the points, those of crops as well."""
        if self.size is not None:
            return self.size.num_prompts
        if self.prompts is not None:
            return self.prompts.num_prompts
        grid = self.request.options.grid
        if grid is None:
            return 0
        # Layer l has 2^l crops a side, each with 2^l times fewer points a side.
        crops = [1 << layer for layer in range(grid.crop_layers + 1)]
        sides = [a_side * max(1, grid.points_per_side // a_side) for a_side in crops]
        return len(self.records) * sum(side**2 for side in sides)

    @property
    def num_masks(self) -> int:
        """About how many masks are encoded at most: few points of a grid find a new object."""
        if self.size is not None:
            return self.size.num_masks
        if self.prompts is not None:
            return self.num_prompts
        return min(self.num_prompts, len(self.records) * GRID_OBJECTS_PER_IMAGE)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know before the run starts."""
        if not self.unmatched:
            return ()
        named = ", ".join(self.unmatched[:NUM_LISTED])
        rest = len(self.unmatched) - NUM_LISTED
        return (
            f"{self.request.prompts}: prompts for {len(self.unmatched)} image(s) that are not "
            f"there: {named}{f' and {rest} more' if rest > 0 else ''} (all are listed in run.json)",
        )

    def describe(self) -> str:
        """The plan in a few lines, for `--dry-run`."""
        grid = self.request.options.grid
        source = f"prompts of {self.request.prompts}"
        if grid is not None:
            source = f"a grid of {grid.points_per_side} x {grid.points_per_side} points"
        shard = self.request.shard
        part = f" (shard {shard} does about {len(self.records) // shard.count})" if shard else ""
        return (
            f"{len(self.records)} images{part}, {source}\n"
            f"{len(self.vocabulary.categories)} names ({self.vocabulary.name}), "
            f"model {self.request.model}, device {self.request.devices}\n"
            f"would write {self.send_to or self.out}/annotations.json"
        )


def plan_run(request: LabelRequest) -> RunPlan:
    """Read vocabulary and prompts, find the images.

    Raises:
        InputError: an option, file or folder of the request cannot be used; names the remedy.
        VocabularyError: a vocabulary is empty, malformed or has duplicates.
        CheckpointError: the weights are not where the request says.
    """
    _check_device(request.devices)
    _check_model(request.model)
    vocabulary = read_vocabulary(request.vocabulary)
    _check_unknown_name(request.options.unknown_name, vocabulary)
    base_vocabulary = read_vocabulary(request.base_names) if request.base_names else None
    prompts = read_prompts(request.prompts) if request.prompts else None
    records = tuple(find_images(request.images))
    unmatched = tuple(prompts.unmatched(records)) if prompts else ()
    if prompts is not None and len(unmatched) == prompts.num_images:
        raise InputError(
            f"{request.prompts}: none of its {prompts.num_images} images is among the "
            f"{len(records)} found (it names {unmatched[0]!r}, the first image is "
            f"{records[0].file_name!r}); file names must be relative to the image folder"
        )
    if prompts is not None:
        prompts = prompts.matched_to(records)
    return RunPlan(request, records, vocabulary, base_vocabulary, prompts, unmatched)


def _check_device(devices: str) -> None:
    if DEVICE_PATTERN.fullmatch(devices):
        return
    parts = devices.split(",")
    if len(parts) < 2 or not all(map(ONE_OF_SEVERAL.fullmatch, parts)):
        raise InputError(
            f"--devices {devices!r}: expected auto, cpu, mps, cuda, cuda:N, all (every CUDA "
            "device), or several with commas: cuda:0,cuda:1"
        )


def _check_model(model: str) -> None:
    if model in DESCRIPTIONS or Path(model).exists():
        return
    if Path(model).suffix in WEIGHT_SUFFIXES or len(Path(model).parts) > 1:
        raise CheckpointError(f"--model {model}: no such file or folder of weights")
    raise InputError(
        f"--model {model!r}: neither a known model ({', '.join(DESCRIPTIONS)}) nor a file or "
        "folder of weights"
    )


def _check_unknown_name(unknown_name: str | None, vocabulary: Vocabulary) -> None:
    if unknown_name is not None and unknown_name in vocabulary.names:
        raise InputError(
            f"--unknown-name {unknown_name!r} is already a name of the vocabulary; choose another"
        )
