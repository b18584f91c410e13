"""Learning rate and moving average: closed forms at their corners."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsam_cli.training.schedule import LoopOptions, compute_rate_share, update_average


@pytest.fixture
def options(tmp_path: Path) -> LoopOptions:
    return LoopOptions(folder=tmp_path, max_steps=1000, learning_rate=1e-4, warmup_steps=101)


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.001),
        (50, (0.001 + 0.999 / 2) * (0.01 + 0.99 * (1 + math.cos(math.pi / 20)) / 2)),
        (100, 0.01 + 0.99 * (1 + math.cos(math.pi / 10)) / 2),
        (500, 0.505),
        (1000, 0.01),
    ],
)
def test_cosine_with_warmup(options: LoopOptions, step: int, share: float) -> None:
    assert compute_rate_share(options, step) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "share"), [(100, 1.0), (666, 1.0), (667, 0.1), (916, 0.1), (917, 0.01), (999, 0.01)]
)
def test_steps_down_at_the_milestones(options: LoopOptions, step: int, share: float) -> None:
    """12 epochs, a tenth after 8 and 11, as published."""
    options = replace(options, schedule="steps")
    assert compute_rate_share(options, step) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_no_warmup(options: LoopOptions, warmup_steps: int) -> None:
    options = replace(options, warmup_steps=warmup_steps, schedule="steps")
    assert compute_rate_share(options, 1) == 1.0
    assert compute_rate_share(options, 0) == (1.0 if warmup_steps == 0 else 0.001)


def test_average_begins_fast_and_copies_counters() -> None:
    average = {"weight": torch.zeros(2), "count": torch.tensor(0)}
    update_average(average, {"weight": torch.ones(2), "count": torch.tensor(3)}, 1, 0.99)
    assert average["weight"].tolist() == pytest.approx([1 - 2 / 11] * 2)
    assert average["count"] == 3
    average["weight"].zero_()
    update_average(average, {"weight": torch.ones(2), "count": torch.tensor(3)}, 10_000, 0.99)
    assert average["weight"].tolist() == pytest.approx([0.01] * 2, rel=1e-4)


def test_impossible_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"accumulate \(0\) must be at least 1"):
        LoopOptions(folder=tmp_path, max_steps=1, learning_rate=1.0, accumulate=0)
