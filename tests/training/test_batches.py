"""Numbers of micro-batches: each once, whatever the ranks, the accumulation and the workers."""

from __future__ import annotations

import pytest
from training.toy_stage import ToySource

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


def test_seeds_of_their_own() -> None:
    seeds = [derive_seed(seed, number) for seed in range(3) for number in range(100)]
    assert len({*seeds}) == 300
    assert derive_seed(1, 2) == derive_seed(1, 2) != derive_seed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
