"""The CLIP2SAM stage: which parts learn, what its losses are made of, and that they fall."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scene_builders import write_scenes
from small_model import SMALL

from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.training.augmentation import AugmentationOptions
from ovsam_cli.training.clip2sam import Clip2SamLosses, Clip2SamOptions, MapNoise, TrainedParts
from ovsam_cli.training.instance_batches import (
    InstanceBatch,
    InstanceSource,
    SourceOptions,
    WeightedSet,
)
from ovsam_cli.training.instance_sets import PackedSet
from ovsam_cli.training.prompt_sampling import PublishedPrompts
from ovsam_cli.training.region_sampling import RegionOptions

IOU_CONFIG = replace(SMALL, iou_head=True, num_point_masks=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> InstanceSource:
    folder: Path = tmp_path_factory.mktemp("data") / "scenes"
    options = SourceOptions(
        SMALL.pixel_mean,
        SMALL.pixel_std,
        num_categories=2,
        augmentation=AugmentationOptions(SMALL.model_size, (0.9, 1.3)),
        prompts=PublishedPrompts(8),
    )
    return InstanceSource([WeightedSet(PackedSet(write_scenes(folder), {1: 0, 2: 1}))], options)


@pytest.fixture(scope="module")
def batch(source: InstanceSource) -> InstanceBatch:
    return source[0]


def make_losses(model: OVSAM | None = None, **options: object) -> Clip2SamLosses:
    torch.manual_seed(0)
    text = F.normalize(torch.randn(2, 2, SMALL.text_dim), dim=-1)
    chosen = replace(Clip2SamOptions(num_points=64), **options)
    return Clip2SamLosses(model or build_ovsam(SMALL), text, chosen)


def compute(losses: Clip2SamLosses, batch: InstanceBatch, seed: int = 0) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = losses(batch, torch.Generator().manual_seed(seed))
    return found


def test_published_parts_learn_and_all_else_is_frozen(batch: InstanceBatch) -> None:
    losses = make_losses()
    losses.train()  # what a loop might do
    torch.stack([*compute(losses, batch).values()]).sum().backward()
    learned = {name for name, one in losses.model.named_parameters() if one.grad is not None}
    assert {name.split(".")[0] for name in learned} == {"fpn_neck", "mask_decoder"}
    # The label MLP's output is not used, as published (spec Q4); a bias of keys changes no
    # attention; boxes use some FPN levels only.
    silent = {
        name
        for name in losses.parts.state_dict().keys() - learned
        if not name.startswith(("mask_decoder.label_mlp", "fpn_neck."))
    }
    assert all(name.endswith(".k_proj.bias") for name in silent)
    assert losses.parts.state_dict().keys() <= losses.model.state_dict().keys()
    assert not losses.model.backbone.training


def test_parts_by_path_keep_their_keys() -> None:
    model = build_ovsam(SMALL)
    parts = TrainedParts(model, ["neck", "backbone.layer4", "backbone.layer3.0"])
    keys = parts.state_dict().keys()
    assert keys <= model.state_dict().keys()
    assert {"backbone.layer4.0.conv1.weight", "backbone.layer3.0.conv1.weight"} <= keys
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {name for name, _ in parts.named_parameters()}


def test_losses_repeat_with_their_generator(batch: InstanceBatch) -> None:
    losses = make_losses(map_noise=MapNoise(), near_share=2 / 3)
    one, same, other = (compute(losses, batch, seed) for seed in (1, 1, 2))
    assert one == same and one["mask"] != other["mask"]
    assert one["class"] == other["class"]  # named on clean maps


def test_perfect_masks_cost_nothing(batch: InstanceBatch) -> None:
    """A decoder that knows the answer: what is left comes from the edges' interpolation."""
    losses = make_losses(num_points=512)
    truth = F.avg_pool2d(batch.masks[:, None].float(), 4)[batch.mask_index]
    side = SMALL.model_size // 4
    assert truth.shape[-1] == side
    losses.model.mask_decoder.decode_field = (  # type: ignore[method-assign]
        lambda *_: DecodedMasks(60 * (truth - 0.5), None)
    )
    perfect = compute(losses, batch)
    losses.model.mask_decoder.decode_field = (  # type: ignore[method-assign]
        lambda *_: DecodedMasks(-60 * (truth - 0.5), None)
    )
    wrong = compute(losses, batch)
    assert float(perfect["mask"]) < 0.1 * float(wrong["mask"])
    assert float(perfect["dice"]) < 0.5 < 3 < float(wrong["dice"])


def test_the_best_mask_of_a_lone_point_counts(batch: InstanceBatch) -> None:
    """Column 0 answers boxes; of a point's three masks the wrong ones cost only their IoU."""
    losses = make_losses(build_ovsam(IOU_CONFIG), num_points=512)
    truth = 60 * (F.avg_pool2d(batch.masks[:, None].float(), 4)[batch.mask_index] - 0.5)
    is_lone = batch.prompts.is_lone_point
    assert 0 < int(is_lone.sum()) < len(is_lone)
    logits = torch.cat([truth, -truth, truth, -truth], dim=1)
    logits[is_lone, 0] *= -1  # nobody reads it
    ious = torch.zeros(len(logits), 4)
    ious[~is_lone, 0] = ious[is_lone, 2] = 1

    def decode_field(*_: object) -> DecodedMasks:
        return DecodedMasks(logits, ious)

    losses.model.mask_decoder.decode_field = decode_field  # type: ignore[method-assign]
    found = compute(losses, batch)
    found = {name: one.detach() for name, one in found.items()}
    assert float(found["mask"]) < 0.3 and float(found["dice"]) < 0.5
    assert float(found["iou"]) < 0.05
    ious.fill_(0.5)
    assert float(compute(losses, batch)["iou"]) > 0.1


def test_no_iou_loss_without_the_head(batch: InstanceBatch) -> None:
    assert compute(make_losses(), batch).keys() == {"mask", "dice", "class"}
    found = compute(make_losses(build_ovsam(IOU_CONFIG)), batch)
    assert found.keys() == {"mask", "dice", "class", "iou"}
    assert all(bool(value.isfinite()) for value in found.values())


def test_objects_without_names_train_masks_only(batch: InstanceBatch) -> None:
    nameless = replace(batch, labels=torch.full_like(batch.labels, -1))
    found = compute(make_losses(), nameless)
    assert float(found["class"].detach()) == 0 and float(found["mask"].detach()) > 0
    losses = make_losses()
    losses.text_embeddings = losses.text_embeddings[:0]  # no vocabulary at all
    assert float(compute(losses, nameless)["class"].detach()) == 0


def test_regions_are_named_instead_of_prompts(source: InstanceSource) -> None:
    options = replace(source.options, regions=RegionOptions(num_background=2, max_side=30))
    batch = InstanceSource(source.sets, options)[0]
    assert batch.regions is not None and 2 in batch.regions.labels.tolist()
    losses = make_losses()
    with_regions = compute(losses, batch)["class"]
    without = compute(losses, replace(batch, regions=None))["class"]
    assert with_regions != without


def test_losses_fall(batch: InstanceBatch) -> None:
    model = build_ovsam(IOU_CONFIG)
    losses = make_losses(model, trained=("neck", "pe", "fpn_neck", "mask_decoder"))
    trained = [one for one in losses.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, 5e-3)
    first = last = 0.0
    for step in range(25):
        optimizer.zero_grad()
        total = torch.stack([*compute(losses, batch, step).values()]).sum()
        total.backward()
        optimizer.step()
        first, last = (float(total.detach()) if step == 0 else first), float(total.detach())
    assert last < 0.75 * first
