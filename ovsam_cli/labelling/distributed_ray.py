"""Parts of a run on a Ray cluster (extra `ray`): Ray Data gives them to actors, one a device.

Each actor builds its labeller once and writes the parts it is given; what comes back are their
counts. Ray starts a process that was killed again and gives it the part once more; nothing of a
part that was not complete counts, so nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.errors import DeviceError, InputError, OvsamError
from ovsam_cli.labelling.device import count_threads
from ovsam_cli.labelling.local_engine import LocalEngine
from ovsam_cli.labelling.part_labelling import PartWorker
from ovsam_cli.labelling.part_ledger import PartJob, PartLedger, PartStats
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.outputs.folders import open_folder
from ovsam_cli.outputs.parquet import ParquetHeader

if TYPE_CHECKING:
    from ray.data import Dataset

CONNECT_TIMEOUT_S = 10.0
Column = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Workers:
    """How a cluster's devices are used.

    Attributes:
        count: actors, one a device.
        device: of each, as it sees it.
        num_cpus, num_gpus: of the cluster for each.
        num_threads: that each computes with where the request does not say.
    """

    count: int
    device: str
    num_cpus: int
    num_gpus: int
    num_threads: int


@dataclass(frozen=True, slots=True)
class Work:
    """What every actor is told.

    Attributes:
        plan: without its images; its request names the device as the actor sees it.
        place: path or URL of the folder for the parts.
        header: of the parts.
    """

    plan: RunPlan
    place: Path | str
    header: ParquetHeader


def check_ray() -> None:
    """Raise InputError where Ray is not installed."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise InputError("--engine ray needs Ray: pip install 'ovsam-cli[ray]'") from error


@contextmanager
def open_cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, until the block ends.

    Args:
        address: `auto`, `ray://host:port`, `host:port`; None or `local` starts one.

    Raises:
        DeviceError: there is none at this address.
    """
    # Its C++ side speaks of restarts that might fail in a cluster whose driver is gone.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    is_local = address in (None, "local")
    try:
        if address is not None and ":" in address:
            _check_reachable(address)
        ray.init(
            "local" if is_local else address,
            include_dashboard=False if is_local else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"--address {address}: no Ray cluster there ({reason}); start one with `ray start "
            "--head`, or leave --address out to use this machine"
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process without a word
        _quiet()
        yield
    finally:
        ray.shutdown()


def choose_workers(devices: str) -> Workers:
    """Divide the connected cluster.

    Args:
        devices: `auto` takes all its GPUs, or without any each node's cores; `cuda` and `all` its
            GPUs; `cpu` each node's cores; `cpu,cpu` two actors that share all cores.

    Raises:
        InputError: the cluster has no such devices.
    """
    import ray

    resources = ray.cluster_resources()
    num_gpus, num_cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    cores = [int(count) for count in nodes if count >= 1] or [1]
    # As many as a process without Ray would take: the result is the same.
    num_threads = count_threads() if len(cores) == 1 else min(cores)
    names = devices.split(",")
    if devices in ("cuda", "all") or (devices == "auto" and num_gpus):
        if not num_gpus:
            raise InputError(f"--devices {devices}: the Ray cluster has no GPU; use cpu")
        per_gpu = max(1, num_cpus // num_gpus)
        return Workers(num_gpus, "cuda", per_gpu, 1, per_gpu)
    if devices in ("auto", "cpu"):
        return Workers(len(cores), "cpu", min(cores), 0, num_threads)
    if set(names) != {"cpu"}:
        raise InputError(
            f"--devices {devices}: with --engine ray the cluster hands out its devices; choose "
            "auto, all, cpu, or how many: cpu,cpu"
        )
    if len(names) > num_cpus:
        raise InputError(f"--devices {devices}: the Ray cluster has only {num_cpus} cores")
    return Workers(len(names), "cpu", num_cpus // len(names), 0, num_threads)


def for_worker(plan: RunPlan, workers: Workers, *, batch_size: int | None = None) -> RunPlan:
    """A plan without images, as an actor needs it."""
    request = plan.request
    options = replace(
        request.options,
        batch_size=batch_size or request.options.batch_size,
        threads=request.options.threads or workers.num_threads,
    )
    return replace(
        plan.without_images(), request=replace(request, devices=workers.device, options=options)
    )


def ask_for_facts(plan: RunPlan, workers: Workers) -> RunFacts:
    """Load the model once on a node of the cluster, to see that it can be done.

    Raises:
        OvsamError: what stands in the way, on that node.
        DeviceError: the process that tried ended.
    """
    import ray

    task = ray.remote(num_cpus=workers.num_cpus, num_gpus=workers.num_gpus, max_retries=2)
    try:
        found = ray.get(task(_load_facts).remote(for_worker(plan, workers)))
    except ray.exceptions.RayError as error:
        raise DeviceError(f"the model cannot be loaded on the Ray cluster: {error}") from error
    if isinstance(found, OvsamError):
        raise found
    assert isinstance(found, RunFacts)
    return found


def iter_labelled(work: Work, workers: Workers, jobs: Sequence[PartJob]) -> Iterator[PartStats]:
    """Have parts labelled; the counts of each as it is complete, in any order.

    Raises:
        OvsamError: a part cannot be labelled or written at all.
        DeviceError: the cluster is gone.
    """
    import ray

    try:
        for row in _build_dataset(work, workers, jobs).iter_rows():
            found = pickle.loads(row["outcome"])
            if isinstance(found, OvsamError):
                raise found
            assert isinstance(found, PartStats)
            yield found
    except ray.exceptions.RayError as error:
        raise DeviceError(
            f"the Ray cluster could not go on: {str(error).splitlines()[-1]}; complete parts are "
            "kept, run the same command again"
        ) from error


def _build_dataset(work: Work, workers: Workers, jobs: Sequence[PartJob]) -> Dataset:
    import ray.data

    rows = [{"job": pickle.dumps(job)} for job in jobs]
    parts = ray.data.from_items(rows, override_num_blocks=len(rows))
    return parts.map_batches(
        RayLabeller,
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(rows))),
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus,
    )


class RayLabeller:
    """An actor's work on Ray Data's batches of one part each; it builds its labeller once."""

    def __init__(self, work: Work) -> None:
        engine = LocalEngine.open(work.plan, on_message=lambda text: None)
        ledger = PartLedger(open_folder(work.place))
        self._worker = PartWorker(work.plan, engine, ledger, work.header)

    def __call__(self, batch: Mapping[str, Column]) -> dict[str, list[bytes]]:
        """Label the parts in `job`; what became of each, or the error, in `outcome`."""
        return {"outcome": [pickle.dumps(self._label(job)) for job in batch["job"]]}

    def _label(self, job: bytes) -> PartStats | OvsamError:
        try:
            part: PartJob = pickle.loads(job)
            return self._worker.label(part)
        except OvsamError as error:  # Ray would wrap it in its own
            return error


def _load_facts(plan: RunPlan) -> RunFacts | OvsamError:
    try:
        return LocalEngine.open(plan, on_message=lambda text: None).facts
    except OvsamError as error:
        return error


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _quiet() -> None:
    """Progress is the caller's to show."""
    from ray.data import DataContext

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
