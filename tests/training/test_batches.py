"""Numbers of micro-batches: each once, whatever the ranks, the accumulation and the workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training.toy_stage import ToyBatch, ToySource

from ovsam_cli.training.batches import BatchOrder, derive_seed, iter_batches


@pytest.mark.parametrize(("accumulate", "world_size"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_each_micro_batch_once_in_steps(accumulate: int, world_size: int) -> None:
    orders = [BatchOrder(accumulate, rank, world_size) for rank in range(world_size)]
    size = orders[0].batches_per_step
    for step in (0, 5):
        numbers = [order.index(step, part) for order in orders for part in range(accumulate)]
        assert sorted(numbers) == [*range(step * size, (step + 1) * size)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_arrive_in_order(num_workers: int) -> None:
    order = BatchOrder(accumulate=2, rank=1, world_size=3)
    batches = iter_batches(ToySource(), order, range(4, 7), num_workers=num_workers)
    assert [batch.index for batch in batches] == [25, 28, 31, 34, 37, 40]


def test_workers_outlive_signals_and_end_with_the_loop() -> None:
    """They ended a minute after a SIGTERM to the group, though a step may take longer."""
    others = {*multiprocessing.active_children()}
    batches = iter_batches(ToySource(), BatchOrder(), range(40), num_workers=2)
    seen = [next(batches).index]
    workers = {*multiprocessing.active_children()} - others
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            assert worker.pid is not None
            os.kill(worker.pid, number)
    seen += [next(batches).index for _ in range(30)]
    assert seen == [*range(31)] and all(worker.is_alive() for worker in workers)
    batches.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


class Slow(ToySource):
    """Never makes its second micro-batch."""

    def __getitem__(self, index: int) -> ToyBatch:
        if index:
            time.sleep(600)
        return super().__getitem__(index)


def test_a_worker_that_still_works_ends_with_the_loop() -> None:
    others = {*multiprocessing.active_children()}
    batches = iter_batches(Slow(), BatchOrder(), range(9), num_workers=1)
    next(batches)
    (worker,) = {*multiprocessing.active_children()} - others
    batches.close()
    worker.join(10)
    assert not worker.is_alive()


def test_workers_end_with_a_killed_process() -> None:
    code = """if True:
        import os, multiprocessing, signal
        from ovsam_cli.training.batches import BatchOrder, iter_batches
        from training.test_batches import Slow
        batches = iter_batches(Slow(), BatchOrder(), range(9), num_workers=1)
        next(batches)
        print(*[one.pid for one in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    pids = [int(one) for one in done.stdout.split()]
    assert pids, done.stderr
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """Not so for what has ended and nobody asked about."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_seeds_of_their_own() -> None:
    seeds = [derive_seed(seed, number) for seed in range(3) for number in range(100)]
    assert len({*seeds}) == 300
    assert derive_seed(1, 2) == derive_seed(1, 2) != derive_seed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
