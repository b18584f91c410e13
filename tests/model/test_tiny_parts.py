"""What of a point's mask stays: the part around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.tiny_parts import find_part, keep_parts_of_points
from ovsam_cli.structures import BoolArray


def make_points(points: list[tuple[float, float]], labels: list[int]) -> ModelPrompts:
    """One point a prompt after a filler point, model frame of 8 pixels."""
    count = len(points)
    coords = torch.zeros(count, 2, 2)
    coords[:, 1] = torch.tensor(points)
    return ModelPrompts(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=coords,
        point_labels=torch.stack([torch.full((count,), -1), torch.tensor(labels)], dim=1),
        model_boxes_xyxy=torch.zeros(count, 4),
        has_box=torch.zeros(count, dtype=torch.bool),
    )


def test_other_parts_change_their_sign_unless_the_point_lies_in_none() -> None:
    """Two parts that touch at a corner only; the last prompts have no part, or no foreground."""
    logits = torch.tensor([[2.0, 3, -1, -1], [1, -2, -1, -1], [-1, 5, 4, -1], [-1, -1, -1, -1]])
    points = [(1.0, 1.0), (5.0, 5.9), (7.0, 7.0), (1.0, 1.0)]  # two pixels a cell
    found = keep_parts_of_points(logits.expand(4, -1, -1), make_points(points, [1, 1, 1, 0]), 8)
    upper, lower = logits.clone(), logits.clone()
    upper[2] *= torch.tensor([1.0, -1, -1, 1])
    lower[:2] *= torch.tensor([[-1.0, -1, 1, 1], [-1, 1, 1, 1]])
    assert torch.equal(found, torch.stack([upper, lower, logits, logits]))


def test_boxes_keep_all_their_parts() -> None:
    logits = torch.tensor([[[1.0, -1.0, 1.0]]])
    prompts = make_points([(0.0, 0.0)], [1])
    boxed = ModelPrompts(
        prompts.image_index,
        prompts.point_coords,
        prompts.point_labels,
        torch.tensor([[0.0, 0, 8, 8]]),
        torch.tensor([True]),
    )
    assert torch.equal(keep_parts_of_points(logits, boxed, 8), logits)


def flood(mask: BoolArray, row: int, column: int) -> BoolArray:
    """Cell by cell."""
    found, waiting = np.zeros_like(mask), [(row, column)]
    while waiting:
        y, x = waiting.pop()
        is_in_frame = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
        if is_in_frame and mask[y, x] and not found[y, x]:
            found[y, x] = True
            waiting += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_parts_equal_those_filled_cell_by_cell(seed: int) -> None:
    """Blobs of smoothed noise, several parts each."""
    noise = np.random.default_rng(seed).normal(size=(4, 64, 64))
    coarse = torch.from_numpy(noise)[:, None, ::6, ::6]
    masks = F.interpolate(coarse, (64, 64), mode="bicubic")[:, 0].numpy() > 0
    starts = np.zeros_like(masks)
    starts[:, 20, 30] = True
    found = find_part(torch.from_numpy(masks), torch.from_numpy(starts)).numpy()
    for mask, one in zip(masks, found, strict=True):
        expected = flood(mask, 20, 30)
        missing = (expected & ~one).sum() / max(expected.sum(), 1)
        assert not (one & ~expected).any()
        assert missing < 0.05  # ways of many bends
