"""Seeds of prompts and the similarity of places to them, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_builders import make_prompts

from ovsam_cli.model.tiny_prompts import NUM_SEEDS, describe_places, draw_seeds
from ovsam_cli.model.tiny_similarity import (
    NEAREST_BACKGROUND,
    NEAREST_FOREGROUND,
    NUM_SIMILARITIES,
    Seeds,
    compare,
    sample_image_maps,
)

SIZE = 128


def test_seeds_of_a_box_lie_in_it_and_around_it() -> None:
    prompts = make_prompts("bbb")
    foreground, background, is_seen = draw_seeds(prompts, SIZE)
    assert foreground.shape == background.shape == (3, NUM_SEEDS, 2)
    boxes = prompts.model_boxes_xyxy
    for box, inner, outer, seen in zip(boxes, foreground, background, is_seen, strict=True):
        assert ((inner >= box[:2]) & (inner <= box[2:])).all()
        assert not ((outer > box[:2]) & (outer < box[2:])).all(dim=1)[seen].any()


def test_a_ring_cut_off_by_the_frame_is_not_seen() -> None:
    """An object at the border: seeds moved to the frame's edge would lie on it."""
    prompts = replace(make_prompts("b"), model_boxes_xyxy=torch.tensor([[40.0, 60, 90, 128]]))
    _, background, is_seen = draw_seeds(prompts, SIZE)
    below = background[0, :, 1] >= SIZE
    assert 0 < int(below.sum()) and not is_seen[0][below].any()
    assert int(is_seen.sum()) >= NUM_SEEDS // 2


def test_seeds_of_points_lie_at_them() -> None:
    prompts = make_prompts("pn")
    foreground, background, _ = draw_seeds(prompts, SIZE)
    for row in range(2):
        labels = prompts.point_labels[row]
        points = prompts.point_coords[row][labels == 1]
        distance = torch.cdist(foreground[row], points).amin(dim=1)
        assert float(distance.max()) <= 6 * SIZE / 512 + 1e-4
        far = prompts.point_coords[row][labels == 0]
        if len(far):
            near_far = torch.cdist(background[row], far).amin(dim=1) <= 5 * SIZE / 512 + 1e-4
            assert int(near_far.sum()) >= NUM_SEEDS // 2


@pytest.mark.parametrize("kinds", ["b", "p", "n", "a"])
def test_prompt_values_are_finite_everywhere(kinds: str) -> None:
    places = torch.rand(1, 50, 2) * SIZE
    values = describe_places(make_prompts(kinds), places, SIZE)
    assert bool(values.isfinite().all())
    assert bool(values[:, :5].any()) == (kinds in "ba")


def test_compare_equals_a_loop_over_places() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(channels: int, count: int) -> torch.Tensor:
        return F.normalize(torch.randn(2, channels, count, generator=generator), dim=1)

    is_seen = torch.rand(2, 2 * NUM_SEEDS, generator=generator) < 0.7
    seeds = Seeds(tuple(draw(channels, 2 * NUM_SEEDS) for channels in (4, 5, 6)), is_seen)
    values = [draw(channels, 7) for channels in (4, 5, 6)]
    found = compare(seeds, values).numpy()
    assert found.shape == (2, NUM_SIMILARITIES, 7)
    for prompt in range(2):
        seen = is_seen[prompt].numpy().reshape(2, NUM_SEEDS)
        for place in range(7):
            expected = []
            for level, there in zip(seeds.levels, values, strict=True):
                cosines = level[prompt].numpy().T @ there[prompt, :, place].numpy()
                groups = [c[s] for c, s in zip(cosines.reshape(2, -1), seen, strict=True)]
                expected += [group.mean() for group in groups] + [group.max() for group in groups]
            np.testing.assert_allclose(found[prompt, :, place], expected, rtol=1e-4, atol=1e-5)
    trunk = (seeds.levels[2][0].numpy().T @ values[2][0].numpy()).reshape(2, NUM_SEEDS, 7)
    seen = is_seen[0].numpy().reshape(2, NUM_SEEDS)
    for row, group, kept in zip((NEAREST_FOREGROUND, NEAREST_BACKGROUND), trunk, seen, strict=True):
        np.testing.assert_allclose(found[0, row], group[kept].max(0), rtol=1e-4)


def test_where_no_seed_is_seen_nothing_is_near() -> None:
    level = F.normalize(torch.randn(1, 4, 2 * NUM_SEEDS), dim=1)
    is_seen = torch.arange(2 * NUM_SEEDS)[None] < NUM_SEEDS
    found = compare(Seeds((level, level, level), is_seen), [level[:, :, :3]] * 3)
    assert bool(found.isfinite().all())
    assert found[0, NEAREST_BACKGROUND].tolist() == [-1, -1, -1]


def test_places_are_sampled_in_their_own_image() -> None:
    maps = torch.arange(3.0)[:, None, None, None].expand(3, 2, 8, 8).contiguous()
    index = torch.tensor([2, 0, 2, 1])
    places = torch.rand(4, 5, 2) * SIZE
    found = sample_image_maps(maps, places, index, SIZE)
    assert found.shape == (4, 2, 5)
    torch.testing.assert_close(found, index[:, None, None].expand(4, 2, 5).float())
    alone = sample_image_maps(maps[1:2], places[3:], torch.tensor([0]), SIZE)
    torch.testing.assert_close(found[3:], alone)
