"""Training prompts: on their own objects, every object before any twice, repeatable."""

import numpy as np
import pytest
import torch
from builders import disc_mask

from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.training.augmentation import CutMasks, find_tight_box
from ovsam_cli.training.prompt_sampling import (
    KINDS,
    DrawnPrompts,
    MixedPrompts,
    PromptRule,
    PublishedPrompts,
    to_model_prompts,
)

SIZE = 128


def make_objects(masks: list[np.ndarray]) -> CutMasks:
    boxes = np.stack([find_tight_box(mask) for mask in masks])
    return CutMasks(np.stack(masks), boxes, np.arange(len(masks)))


def make_views() -> list[CutMasks]:
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
    return [make_objects([disc, ring, dot]), make_objects([cross, corner])]


def only(kind: str) -> MixedPrompts:
    return MixedPrompts(num_prompts=20, kind_probs=tuple(float(one == kind) for one in KINDS))


def draw(rule: PromptRule, seed: int = 0) -> list[DrawnPrompts]:
    rng = np.random.default_rng(seed)
    return [rule.draw(objects, rng) for objects in make_views()]


@pytest.mark.parametrize("rule", [PublishedPrompts(), MixedPrompts(num_prompts=200)])
def test_points_are_on_the_side_their_label_says(rule: PromptRule) -> None:
    """A thin cross: every second row and column missed it, and its center lay outside."""
    for objects, drawn in zip(make_views(), draw(rule), strict=True):
        for row, coords, labels in zip(
            drawn.rows, drawn.point_coords, drawn.point_labels, strict=True
        ):
            for (x, y), label in zip(coords.astype(int), labels, strict=True):
                if label >= 0:
                    assert objects.masks[row][y, x] == bool(label), (row, x, y)


def test_the_published_rule() -> None:
    """Five objects of forty prompts: each eight times; 21 true boxes, then 19 points."""
    objects = make_objects(
        [disc_mask(SIZE, SIZE, center_yx=(20 * n, 60), radius=8) for n in range(1, 6)]
    )
    drawn = PublishedPrompts().draw(objects, np.random.default_rng(0))
    assert np.bincount(drawn.rows).tolist() == [8] * 5
    assert (drawn.boxes_xyxy[:21] == objects.boxes_xyxy[drawn.rows[:21]]).all()
    assert not drawn.boxes_xyxy[21:].any()
    assert (drawn.point_labels[:21] == -1).all() and (drawn.point_labels[21:] == 1).all()
    assert drawn.point_coords.shape == (40, 1, 2) and not drawn.uses_mask.any()
    assert len({tuple(point) for point in drawn.point_coords[21:, 0]}) > 12


@pytest.mark.parametrize(("num", "boxes"), [(1, 1), (2, 2), (3, 2), (40, 21)])
def test_the_published_rule_keeps_the_first_objects(num: int, boxes: int) -> None:
    objects = make_objects([disc_mask(SIZE, SIZE, center_yx=(60, 2 * n)) for n in range(5, 50)])
    drawn = PublishedPrompts(num).draw(objects, np.random.default_rng(1))
    assert sorted(drawn.rows.tolist()) == list(range(num))
    assert int((drawn.boxes_xyxy[:, 2] > 0).sum()) == boxes


@pytest.mark.parametrize("seed", range(20))
def test_objects_that_fill_the_frame_have_no_background_points(seed: int) -> None:
    """Their background points lay on the object."""
    objects = make_objects([np.ones((SIZE, SIZE), bool)])
    drawn = MixedPrompts(num_prompts=20).draw(objects, np.random.default_rng(seed))
    assert not (drawn.point_labels == 0).any()


def test_boxes_lie_around_their_objects() -> None:
    exact = total = 0
    for objects, drawn in zip(make_views(), draw(only("box")), strict=True):
        tight = objects.boxes_xyxy[drawn.rows]
        sides = np.tile(tight[:, 2:] - tight[:, :2], 2)
        boxes = drawn.boxes_xyxy
        assert (abs(boxes - tight) <= 0.4 * sides + 5).all()
        assert (boxes >= 0).all() and (boxes <= SIZE + 2).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        exact, total = exact + int((boxes == tight).all(axis=1).sum()), total + len(boxes)
    assert 0.3 < exact / total < 0.7


def test_every_prompt_says_something() -> None:
    for drawn in draw(MixedPrompts(num_prompts=200)):
        has_box = drawn.boxes_xyxy[:, 2] > 0
        assert ((drawn.point_labels == 1).any(axis=1) | has_box).all()
        assert 0.25 < has_box.mean() < 0.5
        assert not (drawn.uses_mask & has_box).any()


def test_every_object_is_prompted_before_one_is_again() -> None:
    first, second = draw(MixedPrompts(num_prompts=5))
    assert sorted(first.rows[:3].tolist()) == [0, 1, 2]
    assert sorted(second.rows[:2].tolist()) == [0, 1] and set(second.rows) == {0, 1}


def join(drawn: list[DrawnPrompts], views: list[CutMasks]) -> ModelPrompts:
    offsets = np.cumsum([0, *(len(view.rows) for view in views)])[:-1]
    rows = [one.rows + offset for one, offset in zip(drawn, offsets, strict=True)]
    masks = torch.from_numpy(np.concatenate([view.masks for view in views]))
    return to_model_prompts(drawn, masks, torch.from_numpy(np.concatenate(rows)))


def test_prompts_of_views_are_joined() -> None:
    prompts = join(draw(only("box and point")), make_views())
    assert prompts.image_index.tolist() == [0] * 20 + [1] * 20
    assert bool(prompts.has_box.all()) and prompts.prompt_mask_logits is None
    assert not bool(prompts.is_lone_point.any())
    assert bool(join(draw(only("center")), make_views()).is_lone_point.all())


def test_prompts_repeat_with_their_seed() -> None:
    one, same, other = (join(draw(MixedPrompts(), seed), make_views()) for seed in (3, 3, 4))
    assert torch.equal(one.point_coords, same.point_coords)
    assert torch.equal(one.model_boxes_xyxy, same.model_boxes_xyxy)
    assert not torch.equal(one.point_coords, other.point_coords)


def test_mask_prompts_are_rough_logits_of_the_object() -> None:
    view = make_objects([disc_mask(SIZE, SIZE, center_yx=(60, 60), radius=40)])
    drawn = only("mask and point").draw(view, np.random.default_rng(0))
    prompts = join([drawn], [view])
    logits = prompts.prompt_mask_logits
    assert logits is not None and logits.shape == (20, 1, SIZE // 4, SIZE // 4)
    assert prompts.has_mask is not None and bool(prompts.has_mask.all())
    assert float(logits.abs().max()) <= 10
    assert float(logits[0, 0, 15, 15]) == 10
    assert float(logits[0, 0, 0, 0]) == -10


def test_centers_are_deep_inside() -> None:
    view = make_objects([disc_mask(SIZE, SIZE, center_yx=(60, 50), radius=30)])
    drawn = only("center").draw(view, np.random.default_rng(0))
    assert (abs(drawn.point_coords[:, 0] - (50, 60)) <= 5).all()
