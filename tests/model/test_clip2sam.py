"""Boxes of masks, regions, logits and fusion, against small independent computations."""

import numpy as np
import pytest
import torch
from model_builders import build_small_model, make_prompts

from ovsam_cli.model.clip2sam import (
    Fpn,
    Fusion,
    RegionHead,
    assign_levels,
    compute_class_logits,
    compute_mask_boxes,
    fuse_logits,
)
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures


@pytest.mark.parametrize(
    ("cells", "box"),
    [
        ([], (0, 0, 0, 0)),  # an empty mask has no box
        ([(0, 0)], (0, 0, 4, 4)),
        ([(63, 63)], (252, 252, 256, 256)),
        ([(5, 9), (7, 3)], (12, 20, 40, 32)),  # (row, column): exclusive right and bottom
        ([(0, 0), (63, 63)], (0, 0, 256, 256)),
    ],
)
def test_box_of_a_mask(cells: list[tuple[int, int]], box: tuple[int, ...]) -> None:
    mask_logits = torch.full((1, 1, 64, 64), -1.0)
    for row, column in cells:
        mask_logits[0, 0, row, column] = 1.0
    assert compute_mask_boxes(mask_logits, 256).tolist() == [list(box)]


def test_zero_logits_are_background() -> None:
    assert compute_mask_boxes(torch.zeros(2, 1, 8, 8), 32).tolist() == [[0] * 4] * 2


@pytest.mark.parametrize(
    ("side", "level"), [(0, 0), (1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (9999, 3)]
)
def test_level_doubles_with_the_side(side: float, level: int) -> None:
    assert assign_levels(torch.tensor([[7.0, 9.0, 7 + side, 9 + side]]), 4, 56).tolist() == [level]


@torch.inference_mode()
def test_fpn_of_constant_maps() -> None:
    """With identity kernels each level is the sum of itself and all coarser ones."""
    fpn = Fpn(in_channels=(1, 1, 1), out_channels=1)
    for lateral, output in zip(fpn.lateral_convs, fpn.fpn_convs, strict=True):
        torch.nn.init.dirac_(lateral.conv.weight)
        torch.nn.init.dirac_(output.conv.weight)
        lateral.conv.bias.zero_()
        output.conv.bias.zero_()
    maps = [
        torch.full((1, 1, side, side), value) for side, value in ((8, 1.0), (4, 10.0), (2, 100.0))
    ]
    levels = fpn(maps)
    assert [float(level.min()) for level in levels] == [111, 110, 100]
    assert [float(level.max()) for level in levels] == [111, 110, 100]


@torch.inference_mode()
def test_regions_come_from_their_own_image_and_level() -> None:
    head = RegionHead(in_channels=1, text_dim=1, roi_size=3)
    torch.nn.init.ones_(head[0].conv.weight)
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    maps = [
        values[:, level].view(2, 1, 1, 1).expand(2, 1, 512 >> level, 512 >> level)
        for level in range(4)
    ]
    boxes = torch.tensor(
        [[200.0, 200.0, 200 + side, 200 + side] for side in (50, 120, 300, 600, 50, 600)]
    )
    index = torch.tensor([0, 0, 0, 0, 1, 1])
    found = head.embed_regions(maps, boxes, index)[:, 0]
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0, 40.0]))
    assert head.embed_regions(maps, boxes[:0], index[:0]).shape == (0, 1)


@torch.inference_mode()
def test_negative_responses_are_cut_before_the_mean() -> None:
    """The official projection is followed by a ReLU that is easy to miss (spec Q5)."""
    head = RegionHead(in_channels=1, text_dim=1, roi_size=2)
    torch.nn.init.constant_(head[0].conv.weight, -1.0)
    maps = [torch.ones(1, 1, 8, 8)] * 4
    assert head.embed_regions(maps, torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0])).item() == 0


def test_class_logits_take_the_best_synonym() -> None:
    text = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    logits = compute_class_logits(torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, 0.0]]), text, 4.6052)
    scale = np.exp(np.float32(4.6052))
    wanted = torch.tensor([[scale, -scale, 0], [scale, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(logits, wanted, rtol=1e-6, atol=1e-6)


def test_fusion_equals_the_published_formula() -> None:
    """log(q^(1-a) c^a) where no probability is tiny, with a row whose mask is empty."""
    rng = np.random.default_rng(0)
    query, clip = rng.normal(size=(2, 3, 5)).astype(np.float32)
    kind = np.array([1, 2, 0, 2, 1])[:4]
    share = np.where(np.append(kind, 1) == 1, 0.1, 0.9) * np.array([[1], [0], [1]])
    q, c = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (query, clip))
    wanted = np.log(q ** (1 - share) * c**share)
    wanted[:, 2] = -1000
    fused = fuse_logits(
        torch.from_numpy(query),
        torch.from_numpy(clip),
        torch.tensor([True, False, True]),
        Fusion(category_kind=torch.from_numpy(kind)),
    )
    np.testing.assert_allclose(fused, wanted, rtol=1e-5, atol=1e-5)


def test_fusion_of_underflowing_probabilities_is_finite() -> None:
    """The published formula meets -inf * 0 here and answers NaN."""
    query = torch.tensor([[0.0, 400.0, -400.0]])
    clip = torch.tensor([[400.0, -400.0, 0.0]])
    for kinds in ([1, 2], [0, 0], [2, 1]):
        for has_mask in (True, False):
            fusion = Fusion(category_kind=torch.tensor(kinds), alpha=0.1, beta=0.9)
            fused = fuse_logits(query, clip, torch.tensor([has_mask]), fusion)
            assert fused.isfinite().all()


def test_auto_fusion_needs_kinds() -> None:
    with pytest.raises(ValueError, match="needs category_kind"):
        Fusion(mode="auto")


@pytest.fixture(scope="module")
def model() -> OVSAM:
    return build_small_model()


@pytest.fixture(scope="module")
def features(model: OVSAM) -> ImageFeatures:
    with torch.inference_mode():
        return model.encode_images(torch.randn(2, 3, 128, 128), ((128, 128),) * 2)


@pytest.mark.parametrize("mode", ["auto", "head", "clip"])
@torch.inference_mode()
def test_classify_a_batch_equals_each_alone(
    model: OVSAM, features: ImageFeatures, mode: str
) -> None:
    prompts = make_prompts("bpab")
    mask_logits = torch.randn(4, 1, 32, 32)
    mask_logits[2] = -1.0  # an empty mask among others
    text = torch.nn.functional.normalize(torch.randn(6, 2, 8), dim=-1)
    fusion = Fusion(mode=mode, category_kind=torch.tensor([1, 1, 2, 2, 0, 1]))
    together = model.classify(features, mask_logits, prompts, text, fusion)
    assert together.shape == (4, 7)
    assert together.isfinite().all()
    for row in range(4):
        one = make_prompts("bpab").__class__(
            image_index=prompts.image_index[row : row + 1],
            point_coords=prompts.point_coords[row : row + 1],
            point_labels=prompts.point_labels[row : row + 1],
            model_boxes_xyxy=prompts.model_boxes_xyxy[row : row + 1],
            has_box=prompts.has_box[row : row + 1],
        )
        alone = model.classify(features, mask_logits[row : row + 1], one, text, fusion)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["auto", "head", "clip"])
@torch.inference_mode()
def test_no_prompts_are_classified_as_nothing(
    model: OVSAM, features: ImageFeatures, mode: str
) -> None:
    text = torch.nn.functional.normalize(torch.randn(6, 2, 8), dim=-1)
    fusion = Fusion(mode=mode, category_kind=torch.ones(6, dtype=torch.int64))
    nothing = torch.empty(0, 1, 32, 32)
    assert model.classify(features, nothing, make_prompts(""), text, fusion).shape == (0, 7)


@torch.inference_mode()
def test_clip_pools_the_prompts_box_else_the_masks(model: OVSAM, features: ImageFeatures) -> None:
    prompts = make_prompts("bp")
    mask_logits = torch.full((2, 1, 32, 32), -1.0)
    mask_logits[:, :, 4:9, 8:17] = 1.0
    text = torch.nn.functional.normalize(torch.randn(3, 1, 8), dim=-1)
    fusion = Fusion(mode="clip")
    by_default = model.classify(features, mask_logits, prompts, text, fusion)
    boxes = torch.stack([prompts.model_boxes_xyxy[0], torch.tensor([32.0, 16.0, 68.0, 36.0])])
    given = model.classify(features, mask_logits, prompts, text, fusion, clip_boxes_xyxy=boxes)
    torch.testing.assert_close(by_default, given, rtol=0, atol=0)
