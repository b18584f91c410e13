"""Names: which regions and labels are learned, the same head for the same seed."""

import numpy as np
import pytest
import torch
from torch import nn

from ovsam_cli.training.naming import NameTraining, Regions, train_names

NAMES = ("cat", "dog", "", "cat", "gnu", "dog", "cat")
VECTORS = {name: np.eye(4, dtype=np.float32)[row] for row, name in enumerate(("cat", "dog", "emu"))}


def make_training(head: nn.Module) -> NameTraining:
    descriptors = torch.randn(len(NAMES), 6, generator=torch.Generator().manual_seed(0))
    return NameTraining(head, Regions(descriptors.half(), NAMES), VECTORS, 2.0)


def test_names_without_a_vector_are_left_out_and_background_comes_last() -> None:
    training = make_training(nn.Identity())
    assert training.labels.tolist() == [0, 1, 2, 0, 1, 0]  # no gnu
    assert training.text.shape == (2, 1, 4)  # no emu: nothing shows one
    assert len(training.descriptors) == 6


def test_rare_names_are_drawn_more_often_than_they_come() -> None:
    probs = make_training(nn.Identity()).probs
    assert probs[0] < probs[1] < probs[2]  # three cats, two dogs, one background


def train_head(seed: int, num_steps: int) -> tuple[torch.Tensor, list[dict[str, float]]]:
    torch.manual_seed(0)
    head = nn.Linear(6, 4)
    logs: list[dict[str, float]] = []
    options = {"learning_rate": 0.02, "seed": seed, "on_log": logs.append}
    train_names(make_training(head), num_steps=num_steps, batch_size=16, **options)
    return head.weight.detach().clone(), logs


def test_the_head_learns() -> None:
    _, logs = train_head(seed=1, num_steps=200)
    assert [line["step"] for line in logs] == [100, 200]
    assert logs[1]["class"] < logs[0]["class"]


def test_the_head_repeats_with_its_seed() -> None:
    one, same, other = (train_head(seed, num_steps=30)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_short_runs_have_a_warm_up_too(num_steps: int) -> None:
    """Twenty steps once ended in a division by zero inside torch's schedule."""
    weight, _ = train_head(seed=1, num_steps=num_steps)
    assert torch.isfinite(weight).all()
