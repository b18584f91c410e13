"""What a run of benchmarks was asked for, and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ovsam_cli.benchmarking.comparison import USUAL_ROUNDS, Clock

SuiteName = Literal["quick", "full"]
PresetName = Literal["small", "rn50x16"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much data the rows use.

    Attributes:
        vga_hw, large_hw: (height, width) of the usual and the 12 MP image.
        pool_regions, decoder_prompts: of the attention pool and the decoder.
        grid_masks: masks that the grid's filter sees.
        grid_side: points a side of the automatic grid.
        boxes: of the row with several boxes an image.
        images: a round of the rows that read files.
        finished_images: of the run that is started again.
        memory_prompts, memory_images: numbers whose peaks of memory are compared.
    """

    vga_hw: tuple[int, int] = (480, 640)
    large_hw: tuple[int, int] = (3000, 4000)
    pool_regions: int = 20
    decoder_prompts: int = 8
    grid_masks: int = 1024
    grid_side: int = 32
    boxes: int = 20
    images: int = 16
    finished_images: int = 10_000
    memory_prompts: tuple[int, ...] = (20, 256, 1024, 4096)
    memory_images: tuple[int, ...] = (100, 1000, 10_000)


QUICK = Sizes(
    pool_regions=4,
    grid_masks=256,
    grid_side=16,
    images=8,
    finished_images=500,
    memory_prompts=(20, 256),
    memory_images=(20, 200),
)
# For the tests, and for trying a script out.
MINIMAL = Sizes(
    vga_hw=(240, 320),
    large_hw=(360, 480),
    pool_regions=1,
    decoder_prompts=2,
    grid_masks=16,
    grid_side=3,
    boxes=3,
    images=2,
    finished_images=4,
    memory_prompts=(2, 3),
    memory_images=(2, 3),
)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """One run of a suite.

    Attributes:
        suite: which rows.
        device: where the models compute.
        preset: model of random weights: the published one's sizes, or a small one.
        sizes: how much data.
        scratch: folder for what the rows write; the caller removes it.
        rounds: of each comparison.
    """

    suite: SuiteName
    device: torch.device
    preset: PresetName
    sizes: Sizes
    scratch: Path
    rounds: int = USUAL_ROUNDS

    @property
    def clock(self) -> Clock:
        """Core seconds on a CPU, which other processes may share; wall seconds on a GPU."""
        return "cuda" if self.device.type == "cuda" else "core"

    @property
    def has_targets(self) -> bool:
        """Whether the targets of the GPU rows are meant: on a GPU with the published sizes."""
        return self.clock == "cuda" and self.preset == "rn50x16" and self.sizes != MINIMAL

    def new_folder(self, name: str) -> Path:
        """A folder of this name that is not there yet."""
        number = 0
        while (self.scratch / f"{name}-{number}").exists():
            number += 1
        folder = self.scratch / f"{name}-{number}"
        folder.mkdir(parents=True)
        return folder
