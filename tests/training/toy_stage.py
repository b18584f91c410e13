"""A stage that trains in milliseconds, for tests of the loop; also run as a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import InputError
from ovsam_cli.training.batches import SkippedImage, Validated
from ovsam_cli.training.loop import LoopOptions, LossModule, TrainingSummary, train

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class ToyBatch:
    """inputs (4, 6), targets (4, 2)."""

    index: int
    inputs: Tensor
    targets: Tensor
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def num_images(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> Self:
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, slots=True)
class ToySource:
    """A linear map with noise; `bad` micro-batches are not finite, `torn` ones had a bad image."""

    seed: int = 0
    bad: frozenset[int] = frozenset()
    torn: frozenset[int] = frozenset()
    refused: int = -1

    def __getitem__(self, index: int) -> ToyBatch:
        if index == self.refused:
            raise InputError("data: no image can be read; look at skipped.jsonl")
        rng = np.random.default_rng([self.seed, index])
        inputs = torch.from_numpy(rng.standard_normal((4, 6), np.float32))
        if index in self.bad:
            inputs[0, 0] = torch.inf
        skipped = (SkippedImage(Path(f"{index}.jpg"), "cut off"),) if index in self.torn else ()
        return ToyBatch(index, inputs, inputs[:, :2] - inputs[:, 2:4], skipped)


class ToyLosses(LossModule[ToyBatch]):
    """A frozen trunk, a trained head with dropout; the `extra` part is used by every third batch.

    Attributes:
        pause: seconds each forward pass takes at least.
    """

    def __init__(self, pause: float = 0.0, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.trunk = nn.Linear(6, 8).requires_grad_(False)
        self.trained = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(8),
                "head": nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(dropout)),
                "out": nn.Linear(8, 2),
                "extra": nn.Linear(8, 1),
                "names": nn.Embedding(3, 8),
            }
        )
        self.pause = pause
        self.seen: list[int] = []

    def forward(self, batch: ToyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        if self.pause:
            time.sleep(self.pause)
        self.seen.append(batch.index)
        maps = self.trained["norm"](self.trunk(batch.inputs)) + self.trained["names"].weight[0]
        noise = torch.randn(maps.shape, generator=generator)
        maps = self.trained["head"](maps + 0.01 * noise)
        losses = {"square": (self.trained["out"](maps) - batch.targets).square().mean()}
        if batch.index % 3 == 0:
            losses["extra"] = self.trained["extra"](maps).square().mean()
        return losses

    def trained_parts(self) -> nn.Module:
        return self.trained


def toy_options(folder: Path) -> LoopOptions:
    """12 steps of everything the loop can do."""
    return LoopOptions(
        folder=folder,
        max_steps=12,
        learning_rate=0.01,
        gradient_clip=1.0,
        warmup_steps=3,
        average_decay=0.9,
        log_steps=4,
    )


def train_toy(
    options: LoopOptions, source: ToySource | None = None, module: ToyLosses | None = None
) -> tuple[TrainingSummary, ToyLosses]:
    """What a command does: make the stage anew and train; the folder says where to go on."""
    module = ToyLosses() if module is None else module
    summary = train(module, source or ToySource(), options, device=CPU, validate=judge)
    return summary, module


def judge(weights: Mapping[str, Tensor]) -> Validated:
    """The greater the bias, the better."""
    return Validated({"score": float(weights["out.bias"].sum())})


def stage_options(folder: Path, steps: int, *, accumulate: int) -> LoopOptions:
    """Of `main`: a checkpoint after each step, a line and a validation after every fourth."""
    return replace(
        toy_options(folder),
        max_steps=steps,
        accumulate=accumulate,
        checkpoint_seconds=0.0,
        validation_steps=4,
    )


def stage_parts(pause: float = 0.0) -> tuple[ToySource, ToyLosses]:
    """Of `main`: two micro-batches that are not finite, two images that cannot be read."""
    return ToySource(bad=frozenset({9, 10}), torn=frozenset({3, 12})), ToyLosses(pause)


def main() -> None:
    """`toy_stage.py FOLDER STEPS ACCUMULATE WORKERS PAUSE`: a process to kill or to be one rank."""
    folder, steps, accumulate, workers, pause = sys.argv[1:]
    torch.set_num_threads(1)
    options = stage_options(Path(folder), int(steps), accumulate=int(accumulate))
    train_toy(replace(options, num_workers=int(workers)), *stage_parts(float(pause)))


if __name__ == "__main__":
    main()
