"""The training loop: one cosine, a moving average of the weights, checkpoints to continue from."""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import CheckpointError

CHECKPOINT_NAME, BEST_NAME, LOG_NAME = "checkpoint.pt", "best.pt", "log.jsonl"
Scores = Mapping[str, float]
# What a damaged or foreign file makes torch raise.
_UNREADABLE = (
    *(RuntimeError, KeyError, ValueError, TypeError),
    *(EOFError, OSError, pickle.UnpicklingError),
)


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How long and how fast.

    Attributes:
        folder: of checkpoint, best weights and log.
        max_steps: end of the cosine in steps.
        max_seconds: end of the cosine in seconds of training; whichever is nearer counts.
        learning_rate, weight_decay, gradient_clip, warmup_steps: of AdamW.
        average_decay: of the moving average at its slowest.
        checkpoint_seconds, validation_seconds, log_steps: how often.
        seed: of prompts and points.
    """

    folder: Path
    max_steps: int = 100_000
    max_seconds: float = 3600.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    gradient_clip: float = 1.0
    warmup_steps: int = 100
    average_decay: float = 0.998
    checkpoint_seconds: float = 180.0
    validation_seconds: float = 900.0
    log_steps: int = 20
    seed: int = 0


class Training:
    """What a checkpoint holds: module, its average, optimizer, step, seconds, randomness.

    Args:
        module: everything that is trained.
        options: of the loop.
    """

    def __init__(self, module: nn.Module, options: LoopOptions) -> None:
        self.module = module
        self.options = options
        self.optimizer = torch.optim.AdamW(
            _group_parameters(module, options.weight_decay), lr=options.learning_rate
        )
        self.average = {key: value.clone() for key, value in module.state_dict().items()}
        self.rng = np.random.default_rng(options.seed)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.step = 0
        self.seconds = 0.0
        self.best_score = -math.inf

    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        by_steps = self.step / self.options.max_steps
        return min(1.0, max(by_steps, self.seconds / self.options.max_seconds))

    def run(
        self,
        compute_losses: Callable[[np.random.Generator, torch.Generator], Mapping[str, Tensor]],
        validate: Callable[[Mapping[str, Tensor]], Scores] | None = None,
        on_log: Callable[[Scores], None] | None = None,
    ) -> None:
        """Train to the end of the cosine; continues where the checkpoint was.

        Args:
            compute_losses: draws a batch and returns named losses; their sum is minimized.
            validate: scores of averaged weights, `score` among them: the greatest is kept.
            on_log: called with each line of the log.
        """
        sums: dict[str, float] = {}
        last = last_checkpoint = last_validation = time.monotonic()
        while self.progress() < 1:
            losses = compute_losses(self.rng, self.generator)
            self._update(sum(losses.values(), torch.zeros(())))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.step % self.options.log_steps == 0:
                means = {name: total / self.options.log_steps for name, total in sums.items()}
                self._log(means, on_log)
                sums = {}
            is_last = self.progress() >= 1
            if now - last_checkpoint > self.options.checkpoint_seconds or is_last:
                self.save()
                last_checkpoint = time.monotonic()
            due = now - last_validation > self.options.validation_seconds
            if validate is not None and (due or is_last):
                self._validate(validate, on_log)
                last = last_validation = time.monotonic()

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.module.parameters(), self.options.gradient_clip)
        warmup = min(1.0, (self.step + 1) / self.options.warmup_steps)
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * self.progress())) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * warmup * cosine
        self.optimizer.step()
        self.step += 1
        decay = min(self.options.average_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.module.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)

    def _validate(
        self,
        validate: Callable[[Mapping[str, Tensor]], Scores],
        on_log: Callable[[Scores], None] | None,
    ) -> None:
        scores = validate(self.average)
        self._log(scores, on_log)
        if scores["score"] > self.best_score:
            self.best_score = scores["score"]
            _write_atomically(self.average, self.options.folder / BEST_NAME)
            # A run stopped now must still know how good these weights are.
            self.save()

    def _log(self, values: Scores, on_log: Callable[[Scores], None] | None) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1)}
        line |= {"progress": round(self.progress(), 4)}
        line |= {name: round(float(value), 5) for name, value in values.items()}
        with (self.options.folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if on_log is not None:
            on_log(line)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "module": self.module.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_score": self.best_score,
            "rng": json.dumps(self.rng.bit_generator.state),
            "generator": self.generator.get_state(),
        }
        _write_atomically(state, self.options.folder / CHECKPOINT_NAME)

    def resume(self) -> bool:
        """Read the checkpoint of the folder, if there is one.

        Raises:
            CheckpointError: it is of another model, or damaged.
        """
        path = self.options.folder / CHECKPOINT_NAME
        if not path.exists():
            return False
        try:
            state = torch.load(path, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except _UNREADABLE as error:
            # torch's own text on unpickling advises to load the file without protection.
            reason = "damaged" if isinstance(error, pickle.UnpicklingError) else error
            raise CheckpointError(
                f"{path}: not a checkpoint of this training ({reason}); give another --out"
            ) from error
        self.average, self.step = state["average"], state["step"]
        self.seconds, self.best_score = state["seconds"], state["best_score"]
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.generator.set_state(state["generator"])
        return True


def _group_parameters(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Norms, biases and embeddings are not decayed."""
    trained = [value for value in module.parameters() if value.requires_grad]
    matrices = [value for value in trained if value.ndim > 1]
    others = [value for value in trained if value.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _write_atomically(value: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    os.replace(partial, path)
