"""Several training processes, started by torchrun; one process is the same with a world of one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovsam_cli.errors import DeviceError, InputError
from ovsam_cli.labelling.run_folder import STATE_FOLDER, RunLock
from ovsam_cli.outputs.files import output_error

# The other ranks wait while the first one validates.
TIMEOUT = timedelta(hours=2)
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: of this process among all; 0 is the one that writes.
        world_size: number of processes.
        local_rank: of this process on its machine, which is its GPU's number.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and validates."""
        return self.rank == 0

    def greatest(self, values: Sequence[int]) -> list[int]:
        """The greatest of each value over all ranks."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        found: list[int] = tensor.tolist()
        return found

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in their order, on every rank."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.world_size > 1:
            self.greatest([0])


def find_ranks() -> Ranks:
    """This process's place, from the environment that torchrun sets; alone without it.

    Raises:
        InputError: the environment is there in part.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Ranks()
    missing = [name for name in ENVIRONMENT if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} not set; start "
            "several processes with torchrun, or unset WORLD_SIZE"
        )
    return Ranks(*(int(os.environ[name]) for name in ENVIRONMENT[:3]))


def pick_device(name: str, ranks: Ranks) -> torch.device:
    """The device of this rank.

    Args:
        name: "auto", or one of torch such as "cpu", "cuda", "cuda:1".
        ranks: with several ranks, each takes the GPU of its local rank.

    Raises:
        DeviceError: there is no such GPU.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(kind)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: not a device; give auto, cpu or cuda") from error
    if device.type != "cuda":
        return device
    number = ranks.local_rank if ranks.world_size > 1 or device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"GPU {number} asked for, but PyTorch sees {torch.cuda.device_count()}; start as many "
            "processes a machine as it has GPUs, or give --device cpu"
        )
    return torch.device("cuda", number)


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Connect all ranks for the block: gradients by NCCL on GPUs, all else by gloo.

    A process group that is there already is used and left.
    """
    if ranks.world_size == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world_size, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def locked(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Make the folder of a run; the first rank holds its lock for the block.

    Raises:
        OutputError: it cannot be written, or another run writes to it.
    """
    if not ranks.is_first:
        yield
        return
    state_folder = folder / STATE_FOLDER
    try:
        state_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(state_folder, error) from error
    with RunLock.acquire(folder):
        yield


class SharedLosses(nn.Module):
    """Losses whose gradients are the mean over all ranks.

    Args:
        module: named losses of a batch; moved to the first rank's weights.
        ranks: of the process group that is joined.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        super().__init__()
        self._inner = module
        self._parallel: DistributedDataParallel | None = None
        if ranks.world_size > 1:
            with warnings.catch_warnings():
                # torch 2.15 has another name for the argument, 2.6 has this one only.
                warnings.simplefilter("ignore", FutureWarning)
                # Buffers are constants of frozen parts: sending them each time would be a waste.
                self._parallel = DistributedDataParallel(
                    _TouchingAll(module), broadcast_buffers=False
                )

    def forward(self, batch: object, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalar losses of this rank's batch."""
        losses: dict[str, Tensor] = (self._parallel or self._inner)(batch, generator)
        return losses

    def not_shared_yet(self) -> AbstractContextManager[object]:
        """Gradients of the block stay here, to be shared with those of a later one."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()


class _TouchingAll(nn.Module):
    """Makes every trained parameter part of every loss, with a gradient of zero at least.

    A batch may leave a part out (no named object: no loss of names). The ranks would then wait
    for each other's gradients; and looking for unused parameters in every step is both slower
    and wrong with accumulation, where an earlier part of the step may have used them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: object, generator: torch.Generator) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.module(batch, generator)
        name = next(iter(losses))
        touched = [one.flatten()[:0].sum() for one in self.module.parameters() if one.requires_grad]
        return losses | {name: losses[name] + torch.stack(touched).sum()}
