"""Training prompts: on their own objects, every object before any twice, repeatable."""

import numpy as np
import pytest
import torch
from builders import disc_mask

from ovsam_cli.training import prompt_sampling
from ovsam_cli.training.bank import BankView
from ovsam_cli.training.prompt_sampling import TrainingBatch, build_batch, find_tight_box

SIZE = 128


def make_view(masks: list[np.ndarray]) -> BankView:
    maps = tuple(torch.zeros(1, 2, SIZE // stride, SIZE // stride) for stride in (4, 8, 16, 32))
    return BankView(maps, np.stack(masks), ("thing",) * len(masks))


def make_views() -> list[BankView]:
    disc = disc_mask(SIZE, SIZE, center_yx=(40, 50), radius=20)
    ring = disc_mask(SIZE, SIZE, center_yx=(80, 80), radius=40) & ~disc_mask(
        SIZE, SIZE, center_yx=(80, 80), radius=36
    )
    cross = np.zeros((SIZE, SIZE), bool)
    cross[10:75, 41] = cross[41, 10:75] = True  # one pixel wide
    dot = np.zeros((SIZE, SIZE), bool)
    dot[127, 127] = True
    corner = np.zeros((SIZE, SIZE), bool)
    corner[:30, :60] = True
    return [make_view([disc, ring, dot]), make_view([cross, corner])]


def sample(seed: int = 0, num_prompts: int = 200) -> TrainingBatch:
    return build_batch(make_views(), num_prompts, np.random.default_rng(seed))


def test_points_are_on_the_side_their_label_says() -> None:
    """A thin cross: every second row and column missed it, and its center lay outside."""
    batch = sample()
    for row, (coords, labels) in enumerate(
        zip(batch.prompts.point_coords, batch.prompts.point_labels, strict=True)
    ):
        mask = batch.masks[batch.mask_index[row]]
        for (x, y), label in zip(coords.long().tolist(), labels.tolist(), strict=True):
            if label >= 0:
                assert bool(mask[y, x]) == bool(label), (row, x, y)


@pytest.mark.parametrize("seed", range(20))
def test_objects_that_fill_the_frame_have_no_background_points(seed: int) -> None:
    """Their background points lay on the object."""
    views = [make_view([np.ones((SIZE, SIZE), bool)])]
    batch = build_batch(views, 20, np.random.default_rng(seed))
    assert not (batch.prompts.point_labels == 0).any()


def test_boxes_lie_around_their_objects() -> None:
    batch = sample()
    prompts = batch.prompts
    for row in range(len(prompts.has_box)):
        mask = batch.masks[batch.mask_index[row]].numpy()
        tight = find_tight_box(mask)
        assert (batch.boxes_xyxy[row].numpy() == tight).all()
        box = prompts.model_boxes_xyxy[row].numpy()
        if not prompts.has_box[row]:
            assert not box.any()
            continue
        sides = np.tile(tight[2:] - tight[:2], 2)
        assert (abs(box - tight) <= 0.4 * sides + 5).all()
        assert (box >= 0).all() and (box <= SIZE + 2).all() and (box[2:] > box[:2]).all()
    is_exact = (prompts.model_boxes_xyxy == batch.boxes_xyxy).all(dim=1)[prompts.has_box]
    assert 0.35 < float(is_exact.float().mean()) < 0.65


def test_every_prompt_says_something() -> None:
    prompts = sample().prompts
    has_point = (prompts.point_labels == 1).any(dim=1)
    assert bool((has_point | prompts.has_box).all())
    assert 0.3 < float(prompts.has_box.float().mean()) < 0.46
    assert prompts.has_mask is not None and not (prompts.has_mask & prompts.has_box).any()


def test_every_object_is_prompted_before_one_is_again() -> None:
    batch = sample(num_prompts=5)
    assert batch.prompts.image_index.tolist() == [0] * 5 + [1] * 5
    assert len(batch.masks) == 5
    assert sorted(batch.mask_index[:3].tolist()) == [0, 1, 2]
    assert sorted(batch.mask_index[5:7].tolist()) == [3, 4]
    assert set(batch.mask_index[5:].tolist()) == {3, 4}
    assert [len(level) for level in batch.trunk_maps] == [2, 2, 2, 2]


def test_fewer_prompts_than_objects() -> None:
    assert len(sample(num_prompts=1).mask_index) == 2


def test_batches_repeat_with_their_seed() -> None:
    one, same, other = sample(3), sample(3), sample(4)
    assert torch.equal(one.prompts.point_coords, same.prompts.point_coords)
    assert torch.equal(one.prompts.model_boxes_xyxy, same.prompts.model_boxes_xyxy)
    assert not torch.equal(one.prompts.point_coords, other.prompts.point_coords)


def test_mask_prompts_are_rough_logits_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_sampling, "KIND_PROBS", (0, 0, 0, 0, 0, 1))
    view = make_view([disc_mask(SIZE, SIZE, center_yx=(60, 60), radius=40)])
    batch = build_batch([view], 3, np.random.default_rng(0))
    logits = batch.prompts.prompt_mask_logits
    assert logits is not None and logits.shape == (3, 1, SIZE // 4, SIZE // 4)
    assert batch.prompts.has_mask is not None and bool(batch.prompts.has_mask.all())
    assert float(logits.abs().max()) <= 10
    assert float(logits[0, 0, 15, 15]) == 10
    assert float(logits[0, 0, 0, 0]) == -10


def test_without_mask_prompts_there_are_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_sampling, "KIND_PROBS", (1, 0, 0, 0, 0, 0))
    prompts = sample(num_prompts=4).prompts
    assert prompts.prompt_mask_logits is None and prompts.has_mask is None
    assert bool(prompts.has_box.all())
    assert bool((prompts.point_labels == -1).all())


def test_tight_box_is_exclusive_on_the_right_and_below() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4, 7] = mask[11, 22] = True
    assert find_tight_box(mask).tolist() == [7, 4, 23, 12]
