"""Labelling on several devices of this machine, one process each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.device import count_threads, list_devices
from ovsam_cli.labelling.device_worker import run_device
from ovsam_cli.labelling.distributed import Dispatcher
from ovsam_cli.labelling.engine import LabelJob
from ovsam_cli.labelling.machine import count_cores
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.labelling.worker_link import Work
from ovsam_cli.labelling.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class DeviceEngine:
    """Workers, and what the first of them said of the run."""

    pool: WorkerPool
    facts: RunFacts

    def label(self, job: LabelJob) -> None:
        """Label what is left of a run; see `LabelEngine`."""
        Dispatcher(self.pool, job).run()


def find_local_rank() -> int | None:
    """Which of the processes on this machine this is, as torchrun says (`LOCAL_RANK`)."""
    text = os.environ.get("LOCAL_RANK", "")
    return int(text) if text.isascii() and text.isdigit() else None


def resolve_devices(devices: str, *, local_rank: int | None = None) -> tuple[str, ...]:
    """`all` and lists with commas as single devices; everything else stays as it is.

    Args:
        devices: of the request.
        local_rank: for a shard beside others on this machine, which then takes a GPU of its own.

    Raises:
        InputError: a device is not on this machine.
    """
    present = list_devices()
    gpus = tuple(name for name in present if name.startswith("cuda"))
    if devices == "all":
        if not gpus:
            raise InputError("--devices all: means every CUDA device, and there is none here")
        return gpus
    if devices in ("auto", "cuda") and local_rank is not None and gpus:
        return (gpus[local_rank % len(gpus)],)
    names = tuple(devices.split(","))
    missing = [name for name in names if len(names) > 1 and name not in present]
    if missing:
        raise InputError(
            f"--devices {devices}: {missing[0]} is not on this machine; there is "
            f"{', '.join(present)}"
        )
    return names


@contextmanager
def open_device_engine(
    plan: RunPlan,
    devices: Sequence[str],
    *,
    on_message: Callable[[str], None],
    on_worker_start: Callable[[], object] | None,
) -> Iterator[DeviceEngine]:
    """Start workers; they end with the block.

    Args:
        plan: of the whole run.
        devices: one worker each.
        on_message: called with what a person should know.
        on_worker_start: called first in each worker; a function of a module.

    Raises:
        OvsamError: the first worker cannot load the model.
        DeviceError: its process dies again and again.
    """
    small = plan.without_images()
    num_cores = max(1, count_cores() // len(devices))
    # As many as one process alone would take: the result does not depend on how many there are.
    num_threads = plan.request.options.threads or count_threads()
    if num_threads * devices.count("cpu") > count_cores() > 1:
        on_message(
            f"{devices.count('cpu')} processes of {num_threads} threads share {count_cores()} "
            f"cores; from a run's start, --threads {num_cores} would be faster"
        )

    def make_work(device: str, batch_size: int | None) -> Work:
        options = replace(
            small.request.options, threads=num_threads if device == "cpu" else num_cores
        )
        if batch_size is not None:
            options = replace(options, batch_size=batch_size)
        request = replace(small.request, devices=device, options=options)
        return partial(
            run_device,
            plan=replace(small, request=request),
            num_cores=num_cores,
            on_start=on_worker_start,
        )

    with WorkerPool(devices, make_work, on_message=on_message) as pool:
        prompts_sha256 = "" if plan.prompts is None else plan.prompts.sha256
        facts = replace(
            pool.facts,
            fingerprint=replace(pool.facts.fingerprint, prompts_sha256=prompts_sha256),
            options={**pool.facts.options, "batch_size": plan.request.options.batch_size},
            device=f"{len(devices)} processes: {', '.join(devices)} ({pool.facts.device})",
        )
        yield DeviceEngine(pool, facts)
