"""How long and how fast: options of the loop, learning rate and moving average by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Undecayed = Literal["norms", "vectors"]
# Options that may differ when a run goes on: none of them decides about the result.
_FREE = {
    *("folder", "max_seconds", "checkpoint_seconds", "log_steps", "num_workers"),
    *("validation_steps", "accumulate"),
}


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Options of the loop; the learning rate depends on the step alone.

    Attributes:
        folder: of checkpoints, logs and curves.
        max_steps: end of the schedule.
        learning_rate: its greatest value.
        max_seconds: stop cleanly after this long in one call; the next call goes on. None: never.
        accumulate: micro-batches of one process in a step.
        weight_decay: of AdamW; 0 on what `undecayed` names.
        undecayed: `norms` alone, as published, or all `vectors` (norms, biases) and embeddings.
        betas: of AdamW.
        gradient_clip: greatest norm of all gradients together; None: no limit.
        warmup_steps: length of the linear rise.
        warmup_share: where the rise begins, as a share of the rate.
        schedule: "cosine", or "steps" down at the milestones.
        final_share: end of the cosine, as a share of the rate.
        milestones: shares of `max_steps` after which the rate is multiplied by `gamma`.
        gamma: one step down.
        precision: "bfloat16" is autocast: weights and their updates stay float32.
        average_decay: of the weights' moving average at its slowest; None: no average.
        checkpoint_seconds: greatest time between checkpoints.
        validation_steps: steps between validations; 0: only at the end.
        log_steps: steps between lines of the log.
        seed: of everything random.
        num_workers: processes that make micro-batches; 0: none but this one.
        rate_factors: learning rate factors by name prefix of the trained parts; the longest counts.
    """

    folder: Path
    max_steps: int
    learning_rate: float
    max_seconds: float | None = None
    accumulate: int = 1
    weight_decay: float = 0.05
    undecayed: Undecayed = "norms"
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float | None = None
    warmup_steps: int = 500
    warmup_share: float = 0.001
    schedule: Literal["cosine", "steps"] = "cosine"
    final_share: float = 0.01
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    gamma: float = 0.1
    precision: Literal["float32", "bfloat16"] = "float32"
    average_decay: float | None = None
    checkpoint_seconds: float = 300.0
    validation_steps: int = 0
    log_steps: int = 20
    seed: int = 0
    num_workers: int = 0
    rate_factors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_steps", "accumulate", "log_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")

    def describe(self, batches_per_step: int) -> dict[str, bool | int | float | str | None]:
        """What decides about the result, plainly: a run goes on with the same only.

        Args:
            batches_per_step: ranks and accumulation count by their product: four GPUs may go on
                where one with four times the accumulation was.
        """
        described = {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in _FREE
        }
        described["batches_per_step"] = batches_per_step
        return {
            name: value if isinstance(value, bool | int | float | str | None) else str(value)
            for name, value in described.items()
        }


def compute_rate_share(options: LoopOptions, step: int) -> float:
    """The learning rate of update number `step` (from 0), as a share of `learning_rate`.

    Warm-up and decay are multiplied, as two chained schedulers of the published recipes are.
    """
    rise = min(1.0, step / max(1, options.warmup_steps - 1)) if options.warmup_steps else 1.0
    warmup = options.warmup_share + (1 - options.warmup_share) * rise
    if options.schedule == "steps":
        passed = sum(step >= share * options.max_steps for share in options.milestones)
        return float(warmup * options.gamma**passed)
    cosine = (1 + math.cos(math.pi * step / options.max_steps)) / 2
    return warmup * (options.final_share + (1 - options.final_share) * cosine)


@torch.no_grad()
def update_average(
    average: Mapping[str, Tensor], trained: Mapping[str, Tensor], step: int, decay: float
) -> None:
    """Move the average towards the weights, in place; counters are copied.

    Args:
        average: state dict of the average.
        trained: state dict after update `step`, counted from 1.
        decay: at its slowest; the first steps are forgotten sooner.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for key, value in trained.items():
        if value.is_floating_point():
            average[key].lerp_(value, weight)
        else:
            average[key].copy_(value)
