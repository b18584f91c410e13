"""The trunk and its one-query attention pool, against open_clip's ModifiedResNet."""

import torch
from model_builders import make_same_trunks

from ovsam_cli.model.clip_encoder import build_clip_trunk


@torch.inference_mode()
def test_equals_open_clip() -> None:
    ours, theirs = make_same_trunks()
    pixels = torch.randn(2, 3, 96, 96)
    maps = ours(pixels)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (32, 24, 24),
        (64, 12, 12),
        (128, 6, 6),
        (256, 3, 3),
    ]
    torch.testing.assert_close(ours.head(maps[-1]), theirs(pixels), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_pooling_the_whole_map_as_one_region() -> None:
    """A box over the whole image with one sample a cell gives the map itself to the head."""
    ours = build_clip_trunk(layers=(1, 1, 1, 1), width=4, num_heads=4, image_size=96, text_dim=8)
    maps = torch.randn(2, 128, 3, 3)
    boxes = torch.tensor([[0.0, 0.0, 96.0, 96.0]] * 2)
    found = ours.embed_regions(maps, boxes, torch.tensor([1, 0]))
    torch.testing.assert_close(found, ours.head(maps.flip(0)), rtol=1e-5, atol=1e-5)


def test_stays_in_evaluation_mode() -> None:
    trunk = build_clip_trunk(layers=(1, 1, 1, 1), width=4, num_heads=4, image_size=96, text_dim=8)
    assert not any(module.training for module in trunk.train().modules())
