"""Losses against the reference's recorded values, and where they are taken."""

import hashlib

import numpy as np
import pytest
import torch

from ovsam_cli.training.losses import (
    classification_loss,
    dice_loss,
    mask_loss,
    sample_candidates,
    sample_maps,
    sample_uncertain_points,
)


def uniform(key: str, count: int) -> np.ndarray:
    """The recipe of the recorded values: (-1, 1) numbers from a string."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(count)
    return ((raw >> np.uint64(40)) - 8388607.5) / 8388608


@pytest.fixture
def points() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.tensor(4 * uniform("loss.pred", 320).reshape(5, 64)).float()
    targets = torch.tensor(uniform("loss.gt", 320).reshape(5, 64) < 0).float()
    return logits, targets


def test_mask_losses_are_the_references(points: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert float(mask_loss(*points)) == pytest.approx(6.377559661865234, rel=1e-5)
    assert float(dice_loss(*points)) == pytest.approx(2.503533124923706, rel=1e-5)


def test_classification_loss_is_the_references() -> None:
    """The label -1 adds nothing to the sum, yet 1 to the normalizer."""
    logits = torch.tensor(5 * uniform("loss.cls", 55).reshape(5, 11)).float()
    loss = classification_loss(logits, torch.tensor([0, 3, -1, 9, 7]))
    assert float(loss) == pytest.approx(6.986634731292725, rel=1e-5)


def test_uncertain_points_lie_where_logits_are_near_zero() -> None:
    columns = torch.linspace(-8, 8, 64).expand(64, 64)[None, None]
    points = sample_uncertain_points(columns, 400, torch.Generator().manual_seed(0))
    important = points[0, :300, 0]
    assert points.shape == (1, 400, 2)
    assert float((important - 0.5).abs().max()) < 0.3


def test_candidates_crowd_around_a_small_box() -> None:
    box = torch.tensor([[0.5, 0.5, 0.52, 0.52]])
    points = sample_candidates(box, 900, torch.Generator().manual_seed(0))
    is_near = ((points - 0.51).abs() < 0.02).all(dim=-1)
    assert 500 < int(is_near.sum()) < 700
    assert float(points.min()) >= 0 and float(points.max()) < 1


def test_closed_forms() -> None:
    """No opinion costs log 2; certainty about the right answer costs nothing."""
    targets = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    undecided, sure = torch.zeros(1, 4), 100 * (2 * targets - 1)
    assert float(mask_loss(undecided, targets)) == pytest.approx(5 * np.log(2), rel=1e-6)
    assert float(dice_loss(undecided, targets)) == pytest.approx(5 * (1 - 3 / 5), rel=1e-6)
    assert float(mask_loss(sure, targets)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(sure, targets)) == pytest.approx(0, abs=1e-6)
    empty = torch.zeros(1, 4)
    assert float(dice_loss(empty - 100, empty)) == pytest.approx(0, abs=1e-6)


def test_background_weighs_a_tenth() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    background = -torch.log_softmax(logits[1], 0)[2]
    expected = 2 * (np.log(3) + 0.1 * background) / 1.1
    found = classification_loss(logits, torch.tensor([0, 2]))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_maps_are_sampled_at_cell_centers() -> None:
    maps = torch.arange(8.0).reshape(1, 1, 2, 4)
    points = torch.tensor([[[0.125, 0.25], [0.875, 0.75], [0.5, 0.5]]])
    assert sample_maps(maps, points).tolist() == [[0.0, 7.0, 3.5]]
