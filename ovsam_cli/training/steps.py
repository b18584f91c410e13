"""One step: gradients of its micro-batches, and the update of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ovsam_cli.training.batches import Batch, BatchOrder, SkippedImage, derive_seed
from ovsam_cli.training.checkpoints import TrainingState
from ovsam_cli.training.distributed import SharedLosses
from ovsam_cli.training.optimizer import set_rate
from ovsam_cli.training.schedule import LoopOptions, compute_rate_share, update_average


@dataclass(frozen=True, slots=True)
class Gradients:
    """What the micro-batches of a step gave; the gradients themselves stand in the parameters.

    Attributes:
        losses: by name, of each micro-batch of this process.
        norm: of all gradients together, before clipping; the same on all ranks.
        num_images: of this process.
        skipped: unreadable images, each with its micro-batch's number.
    """

    losses: tuple[dict[str, float], ...]
    norm: float
    num_images: int
    skipped: tuple[tuple[int, SkippedImage], ...]

    def are_finite(self) -> bool:
        """Whether the step can be made."""
        values = [value for losses in self.losses for value in losses.values()]
        return all(math.isfinite(value) for value in [self.norm, *values])


class Stepper:
    """Computes gradients and applies them.

    Args:
        losses: the stage's, shared by all ranks.
        state: its weights, optimizer and average are updated.
        options: of the loop.
        order: which micro-batches this process takes.
        device: of the losses.
    """

    def __init__(
        self,
        losses: SharedLosses,
        state: TrainingState,
        options: LoopOptions,
        order: BatchOrder,
        device: torch.device,
    ) -> None:
        self._losses = losses
        self._state = state
        self._options = options
        self._order = order
        self._device = device
        self._generator = torch.Generator(device)
        self._parameters = [one for one in state.trained.parameters() if one.requires_grad]

    def compute_gradients(self, batches: Iterator[Batch]) -> Gradients:
        """Mean gradients of the step's micro-batches over all ranks; no weight changes."""
        losses, skipped, num_images = [], [], 0
        self._state.optimizer.zero_grad(set_to_none=True)
        for part in range(self._options.accumulate):
            batch = next(batches)
            index = self._order.index(self._state.step, part)
            num_images += batch.num_images
            skipped += [(index, image) for image in batch.skipped]
            is_last = part == self._options.accumulate - 1
            with nullcontext() if is_last else self._losses.not_shared_yet():
                losses.append(self._backward(batch, index))
        for parameter in self._parameters:
            # As with several ranks, where a gradient is always there: the update is the same.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = get_total_norm([one.grad for one in self._parameters if one.grad is not None])
        return Gradients(
            losses=tuple(
                dict(zip(one, torch.stack([*one.values()]).tolist(), strict=True)) for one in losses
            ),
            norm=float(norm),
            num_images=num_images,
            skipped=tuple(skipped),
        )

    def _backward(self, batch: Batch, index: int) -> dict[str, Tensor]:
        seed = derive_seed(self._options.seed, index)
        self._generator.manual_seed(seed)
        # Dropout draws from torch's own generator: it must continue with the step too.
        # (`torch.manual_seed` does the same at a cost of milliseconds where CUDA sleeps.)
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)
        is_half = self._options.precision == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_half):
            losses = self._losses(batch.to(self._device), self._generator)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        torch.autograd.backward(total / self._options.accumulate)
        return {name: value.detach().float() for name, value in losses.items()}

    def rate(self) -> float:
        """Learning rate of the step to come."""
        return self._options.learning_rate * compute_rate_share(self._options, self._state.step)

    def update(self, norm: float) -> None:
        """Clip the gradients and move weights and average.

        Args:
            norm: of the gradients.
        """
        state, options = self._state, self._options
        if options.gradient_clip is not None:
            total = torch.tensor(norm, device=self._device)
            clip_grads_with_norm_(self._parameters, options.gradient_clip, total)
        set_rate(state.optimizer, self.rate())
        state.optimizer.step()
        if state.average is not None and options.average_decay is not None:
            update_average(
                state.average, state.trained.state_dict(), state.step + 1, options.average_decay
            )
