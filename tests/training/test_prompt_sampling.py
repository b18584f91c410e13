"""Training prompts: inside their masks, boxes tight or nearly, every object prompted."""

import numpy as np
import torch

from ovsam_cli.training.bank import BankView
from ovsam_cli.training.prompt_sampling import build_batch, find_tight_box

SIZE = 128


def make_view() -> BankView:
    masks = np.zeros((3, SIZE, SIZE), bool)
    masks[0, 10:30, 20:60] = True
    masks[1, 70:110, 70:100] = True
    masks[2, 100:108, 5:12] = True
    maps = tuple(torch.zeros(1, 4, SIZE // s, SIZE // s) for s in (4, 8, 16, 32))
    return BankView(maps, masks, ("cup", "dog", ""))


def test_tight_box_is_exclusive() -> None:
    assert find_tight_box(make_view().masks[0]).tolist() == [20, 10, 60, 30]


def test_first_points_lie_in_their_masks() -> None:
    batch = build_batch([make_view(), make_view()], 40, np.random.default_rng(0))
    prompts = batch.prompts
    first = prompts.point_labels[:, 0] == 1
    assert 20 < int(first.sum()) < 79
    cells = prompts.point_coords[:, 0].long()
    values = batch.masks[batch.mask_index, cells[:, 1], cells[:, 0]]
    assert bool(values[first].all())


def test_background_points_lie_outside() -> None:
    batch = build_batch([make_view()], 200, np.random.default_rng(1))
    labels = batch.prompts.point_labels
    rows, columns = (labels == 0).nonzero(as_tuple=True)
    cells = batch.prompts.point_coords[rows, columns].long()
    assert len(rows) > 5
    assert not bool(batch.masks[batch.mask_index[rows], cells[:, 1], cells[:, 0]].any())


def test_every_object_is_prompted_before_one_is_prompted_again() -> None:
    batch = build_batch([make_view()], 3, np.random.default_rng(2))
    assert sorted(batch.mask_index.tolist()) == [0, 1, 2]


def test_same_seed_same_prompts() -> None:
    first, second = (build_batch([make_view()], 16, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.prompts.point_coords, second.prompts.point_coords)
    assert torch.equal(first.prompts.model_boxes_xyxy, second.prompts.model_boxes_xyxy)
