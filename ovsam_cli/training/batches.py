"""Micro-batches by number: what a source of training data is, and how the loop reads it.

Everything random in training is a function of (seed, number of the micro-batch). A stopped run
therefore continues bit for bit from a step's number alone: there is no loader or generator state
to keep, and the number of loader workers changes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ovsam_cli.errors import InputError

PREFETCHED = 3  # micro-batches a worker makes ahead
PARENT_CHECK_SECONDS = 1.0  # between a worker's looks whether its process is still there


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An image that could not be read; another one took its place.

    Attributes:
        path: of the image.
        reason: one sentence.
    """

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Validated:
    """What a validation found.

    Attributes:
        scores: by name, `score` among them: the greater, the better.
        skipped: images that could not be read, each told once; the scores are of the others.
    """

    scores: Mapping[str, float]
    skipped: tuple[SkippedImage, ...] = ()


class Batch(Protocol):
    """What one forward pass is given."""

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Images that could not be read while it was made."""

    @property
    def num_images(self) -> int:
        """Images in it, for the speed in the log."""

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on `device`."""


B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class BatchSource(Protocol[B_co]):
    """Training data without end, in workers of a loader (so it must be picklable)."""

    def __getitem__(self, index: int) -> B_co:
        """Micro-batch `index` >= 0, which depends on the source's own seed and `index` alone.

        Raises:
            InputError: training cannot go on, such as when no image can be read.
        """


class LossModule(nn.Module, Generic[B]):
    """A training stage: a batch in, named losses out; only the trained parts require gradients.

    Frozen parts stay in evaluation mode, which is the stage's business: the loop sets no modes.
    """

    def forward(self, batch: B, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalar losses, whose sum is minimized.

        Args:
            batch: on the module's device.
            generator: of all randomness, on the module's device; seeded for this batch.
        """
        raise NotImplementedError

    def trained_parts(self) -> nn.Module:
        """The sub-module whose state dict is checkpointed, averaged and validated."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Which micro-batches this process takes.

    Attributes:
        accumulate: micro-batches of one process in a step.
        rank: of this process.
        world_size: number of processes.
    """

    accumulate: int = 1
    rank: int = 0
    world_size: int = 1

    def index(self, step: int, part: int) -> int:
        """Number of the micro-batch of a step's `part` < accumulate."""
        return (step * self.accumulate + part) * self.world_size + self.rank

    @property
    def batches_per_step(self) -> int:
        """Micro-batches of all processes in a step."""
        return self.accumulate * self.world_size


def derive_seed(seed: int, *numbers: int) -> int:
    """A seed of its own for each combination of non-negative numbers, in [0, 2^63)."""
    words = np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def iter_batches(
    source: BatchSource[B],
    order: BatchOrder,
    steps: range,
    *,
    num_workers: int,
    pin_memory: bool = False,
) -> Generator[B, None, None]:
    """This process's micro-batches of `steps`, in order, made ahead by worker processes.

    Args:
        source: of the micro-batches.
        order: which of them are ours.
        steps: the steps to come.
        num_workers: processes that make them; 0 makes each when it is asked for.
        pin_memory: hand over page-locked memory; a batch needs a `pin_memory` method for that.

    Raises:
        InputError: the source's own.
    """
    loader: DataLoader[B | _Refusal] = DataLoader(
        _WithRefusals(source),
        batch_size=None,
        sampler=_Indices(order, steps),
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=PREFETCHED if num_workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_live_as_long_as_parent,
    )
    others = {*multiprocessing.active_children()}
    try:
        for batch in loader:
            if isinstance(batch, _Refusal):
                raise InputError(batch.text)
            yield batch
    finally:
        # The loader has waited some seconds for each; whoever still makes a batch ignores SIGTERM.
        if num_workers:
            for worker in {*multiprocessing.active_children()} - others:
                worker.kill()


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A worker's InputError: the loader itself would put the worker's traceback into its text."""

    text: str


@dataclass(frozen=True, slots=True)
class _Indices:
    """Numbers of our micro-batches, made as they are needed: a long run has millions."""

    order: BatchOrder
    steps: range

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            for part in range(self.order.accumulate):
                yield self.order.index(step, part)


class _WithRefusals(Dataset["B | _Refusal"], Generic[B]):
    def __init__(self, source: BatchSource[B]) -> None:
        self.source = source

    def __getitem__(self, index: int) -> B | _Refusal:
        try:
            return self.source[index]
        except InputError as error:
            return _Refusal(str(error))


def _as_it_is(batch: B) -> B:
    return batch


def _live_as_long_as_parent(worker: int) -> None:
    """Ctrl-C and kill reach the whole group; the main process finishes its step with its workers.

    A step may take minutes, so a worker ends when it is no longer needed, not after some time:
    when the loop ends, or when the main process is gone, however that came.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has but the latter
