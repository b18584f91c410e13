"""Losses against the reference's recorded values, and where they are taken."""

import hashlib

import numpy as np
import pytest
import torch

from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.training.losses import (
    choose_masks,
    choose_uncertain_points,
    classification_loss,
    count_candidates,
    dice_loss,
    estimate_ious,
    iou_loss,
    mask_loss,
    sample_candidates,
    sample_true_masks,
    weigh_candidates,
    weigh_masks,
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
    assert float(mask_loss(*points).mean()) == pytest.approx(6.377559661865234, rel=1e-5)
    assert float(dice_loss(*points).mean()) == pytest.approx(2.503533124923706, rel=1e-5)


def test_classification_loss_is_the_references() -> None:
    """The label -1 adds nothing to the sum, yet 1 to the normalizer."""
    logits = torch.tensor(5 * uniform("loss.cls", 55).reshape(5, 11)).float()
    loss = classification_loss(logits, torch.tensor([0, 3, -1, 9, 7]))
    assert float(loss) == pytest.approx(6.986634731292725, rel=1e-5)


def test_uncertain_points_lie_where_logits_are_near_zero() -> None:
    candidates = torch.rand(1, count_candidates(400), 2, generator=torch.Generator().manual_seed(0))
    points = choose_uncertain_points(16 * candidates[..., 0] - 8, candidates, 400)
    assert candidates.shape == (1, 1300, 2) and points.shape == (1, 400, 2)
    assert float((points[0, :300, 0] - 0.5).abs().max()) < 0.3
    assert torch.equal(points[:, 300:], candidates[:, 1200:])  # unseen


def test_candidates_are_anywhere_unless_asked_for() -> None:
    boxes = torch.tensor([[0.9, 0.9, 0.95, 0.95]])
    points = sample_candidates(boxes, 4000, torch.Generator().manual_seed(0))
    assert float((points.mean(dim=(0, 1)) - 0.5).abs().max()) < 0.02


def test_candidates_crowd_around_a_small_box() -> None:
    box = torch.tensor([[0.5, 0.5, 0.52, 0.52]])
    points = sample_candidates(box, 900, torch.Generator().manual_seed(0), near_share=2 / 3)
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
    assert DecodedMasks(maps, None).sample(points).tolist() == [[[0.0, 7.0, 3.5]]]


def test_true_masks_are_sampled_as_maps_are() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(3, 16, 16, generator=generator) < 0.5
    index, points = torch.tensor([2, 0]), torch.rand(2, 200, 2, generator=generator)
    expected = DecodedMasks(masks[index][:, None].float(), None).sample(points)[:, 0]
    assert torch.allclose(sample_true_masks(masks, index, points), expected, atol=1e-5)


def test_no_boxes_cost_nothing() -> None:
    loss = classification_loss(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    assert float(loss) == 0


@pytest.mark.parametrize("near_share", [0.0, 2 / 3])
def test_ious_are_estimated_without_bias(near_share: float) -> None:
    """Two discs whose IoU is known, one small object in a large frame."""
    boxes = torch.tensor([[0.4, 0.4, 0.5, 0.5], [0.1, 0.2, 0.9, 0.8]])
    generator = torch.Generator().manual_seed(0)
    points = sample_candidates(boxes, 200_000, generator, near_share=near_share)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    truth = ((points >= low) & (points < high)).all(dim=2).float()
    shifted = ((points >= low) & (points < high + (high - low) * torch.tensor([0.5, 0.0]))).all(
        dim=2
    )
    empty, leaking = torch.zeros_like(truth) - 1, torch.ones_like(truth)
    logits = torch.stack([2 * truth - 1, 2 * shifted.float() - 1, empty, leaking], dim=1)
    shares = weigh_candidates(boxes, points, near_share=near_share)
    found = estimate_ious(logits, truth, shares)
    wide = [1 / 1.5, 0.8 / 0.9]  # the second box, shifted, leaves the frame
    for row in range(2):
        area = float((boxes[row, 2:] - boxes[row, :2]).prod())
        assert found[row].tolist() == pytest.approx([1, wide[row], 0, area], abs=0.03)


def test_of_a_lone_point_the_best_mask_learns_most() -> None:
    losses = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 0.5]])
    is_lone = torch.tensor([False, True])
    assert weigh_masks(losses, is_lone).tolist() == [[1, 0, 0], [0, 0, 1]]
    shares = weigh_masks(losses, is_lone, single_share=0.3, other_share=0.03)
    assert shares[0].tolist() == [1, 0, 0]
    assert shares[1].tolist() == pytest.approx([0.3, 0.03, 1.0])
    assert weigh_masks(losses[:, :1], torch.tensor([False, False])).tolist() == [[1], [1]]
    logits, ious = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([[0.9, 0, 0], [0.9, 0.3, 0.4]])
    assert choose_masks(logits, ious, torch.tensor([False, True])).tolist() == [[0, 1], [10, 11]]


def test_iou_loss_is_the_mean_square() -> None:
    assert float(iou_loss(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.8]))) == pytest.approx(
        (0.25 + 0.04) / 2
    )
