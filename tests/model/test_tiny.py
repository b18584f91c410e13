"""The bundled model's parts: the trunk against timm, the untrained answer, batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptLayout
from ovsam_cli.model.tiny_build import TINY_CONFIG, build_tiny
from ovsam_cli.model.tiny_field import TinyField
from ovsam_cli.model.tiny_quality import choose_surest, estimate_iou
from ovsam_cli.model.tiny_trunk import STAGES, LiteTrunk, fold_lite0_weights


def published_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict of EfficientNet-Lite0 under the names of the published file."""
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    top["classifier"] = "_fc"
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    first["bn2"] = "_bn2"
    later |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    starts = np.cumsum([0, *(stage[-1] for stage in STAGES)])
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            stage, block = int(parts[1]), int(parts[2])
            names = first if stage == 0 else later
            parts = ["_blocks", str(starts[stage] + block), names[parts[3]], *parts[4:]]
        else:
            parts[0] = top[parts[0]]
        renamed[".".join(parts)] = value
    return renamed


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    """timm's network with random weights and batch-norm statistics."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0")
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.2)
    return network.eval()


@pytest.fixture(scope="module")
def model() -> OVSAM:
    torch.manual_seed(0)
    return build_tiny(TINY_CONFIG).eval()


def make_prompts(boxes: list[list[float]], points: list[list[float]]) -> ModelPrompts:
    """Boxes first, then prompts of one foreground point."""
    count = len(boxes) + len(points)
    model_boxes = torch.zeros(count, 4)
    model_boxes[: len(boxes)] = torch.tensor(boxes).reshape(-1, 4)
    coords, labels = torch.zeros(count, 1, 2), torch.full((count, 1), -1)
    coords[len(boxes) :, 0] = torch.tensor(points).reshape(-1, 2)
    labels[len(boxes) :] = 1
    return ModelPrompts(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=coords,
        point_labels=labels,
        model_boxes_xyxy=model_boxes,
        has_box=torch.arange(count) < len(boxes),
    )


@pytest.mark.parametrize("side", [64, 75])
def test_trunk_equals_timm_whatever_the_padding(reference: torch.nn.Module, side: int) -> None:
    """A wrong variant still says "cat" to a cat; only the logits tell."""
    trunk = LiteTrunk().eval()
    trunk.load_state_dict(fold_lite0_weights(published_names(reference.state_dict())))
    pixels = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        expected, found = reference(pixels), trunk.imagenet_logits(trunk(pixels)[-1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_untrained_model_finds_the_disc_in_a_box(model: OVSAM) -> None:
    """What looks like the middle of the box and not like its surroundings is the answer."""
    rows, columns = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    disc = ((columns - 150) / 40) ** 2 + ((rows - 250) / 30) ** 2 <= 1
    noise = 0.1 * torch.randn(3, 512, 512, generator=torch.Generator().manual_seed(1))
    features = model.encode_images((disc * 2.0 - 1 + noise)[None], [(512, 512)])
    prompts = make_prompts([[100, 200, 220, 290]], [])  # the disc fills its left part
    found = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits[0, 0] > 0
    ellipse = ((columns - 160) / 60) ** 2 + ((rows - 245) / 45) ** 2 <= 1
    truth = disc[::2, ::2]

    def iou(mask: Tensor) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    assert iou(found) > iou(ellipse[::2, ::2]) + 0.05


@pytest.mark.parametrize(
    ("boxes", "points"),
    [([[50.0, 60, 150, 90], [10.0, 20, 90, 200]], []), ([], [[300.0, 310.0], [40.0, 470.0]])],
    ids=["boxed", "unboxed"],
)
@torch.inference_mode()
def test_prompts_alike_give_what_mixed_ones_do(
    model: OVSAM,
    boxes: list[list[float]],
    points: list[list[float]],
) -> None:
    layout: PromptLayout = "boxed" if boxes else "unboxed"
    features = model.encode_images(torch.randn(1, 3, 512, 512), [(512, 512)])
    prompts = make_prompts(boxes, points)
    if boxes:  # no filler
        prompts = replace(
            prompts, point_coords=torch.zeros(2, 0, 2), point_labels=torch.zeros(2, 0)
        )
    alike = replace(prompts, layout=layout)
    expected, found = (
        model.decode_masks(features, model.encode_prompts(p)) for p in (prompts, alike)
    )
    assert torch.equal(found.mask_logits, expected.mask_logits)


@torch.inference_mode()
def test_mask_logits_are_float32_within_autocast(model: OVSAM) -> None:
    """Half precision would round a mask's outline."""
    prompts = make_prompts([[50, 60, 150, 90]], [[300.0, 310.0]])
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(2))
    masks = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            features = model.encode_images(pixels, [(512, 512)])
            masks.append(model.decode_masks(features, model.encode_prompts(prompts)).mask_logits)
    assert masks[1].dtype == torch.float32
    assert not torch.equal(masks[1].bfloat16().float(), masks[1])
    assert ((masks[0][0] > 0) == (masks[1][0] > 0)).float().mean() > 0.97


@torch.inference_mode()
def test_a_lone_point_gets_the_surest_of_its_masks(model: OVSAM) -> None:
    features = model.encode_images(torch.randn(1, 3, 512, 512), [(512, 512)])
    points = [[300.0, 310.0], [40.0, 470.0]]
    embeddings = model.encode_prompts(make_prompts([[50, 60, 150, 90]], points))
    field = model.mask_decoder.decode_field(
        features.image_embeddings, model.pe.image_pe(), embeddings, features.fine_features
    )
    every = field.draw()
    assert every.shape == (3, 4, 256, 256)
    decoded = model.decode_masks(features, embeddings)
    assert isinstance(field, TinyField)
    values = field._read_image(0)
    chosen = choose_surest(field._weigh_cells(values), embeddings.prompts.is_lone_point)
    assert chosen[0] == 0 and (chosen[1:] > 0).all()
    expected = every[torch.arange(3), chosen][:, None]
    # Of a noise image's mask little is connected with the point; the rest changes its sign.
    torch.testing.assert_close(decoded.mask_logits[0], expected[0])
    assert ((decoded.mask_logits > 0) & (expected <= 0)).float().mean() < 0.01
    assert decoded.iou_predictions is not None
    torch.testing.assert_close(
        decoded.iou_predictions,
        estimate_iou(decoded.mask_logits, embeddings.prompts.is_lone_point),
    )


@torch.inference_mode()
def test_masks_and_their_quality_do_not_depend_on_the_company(model: OVSAM) -> None:
    features = model.encode_images(torch.randn(2, 3, 512, 512), [(512, 512), (512, 400)])
    points = [[20.0 + 40 * number, 500.0 - 35 * number] for number in range(11)]
    prompts = make_prompts([[50, 60, 350, 290]], points)
    prompts = replace(prompts, image_index=torch.arange(12) % 2)
    whole = model.decode_masks(features, model.encode_prompts(prompts))
    parts = [
        model.decode_masks(features, model.encode_prompts(prompts.take(slice(start, start + 5))))
        for start in (0, 5, 10)
    ]
    joined = DecodedMasks.concatenate(parts)
    torch.testing.assert_close(joined.mask_logits, whole.mask_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(joined.iou_predictions, whole.iou_predictions, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_field_says_at_points_what_it_draws(model: OVSAM) -> None:
    """Training asks for points, inference draws: the same function."""
    features = model.encode_images(torch.randn(2, 3, 512, 512), [(512, 512), (512, 400)])
    prompts = make_prompts([[50, 60, 350, 290]], [[300, 310], [30, 40]])
    prompts = replace(prompts, image_index=torch.tensor([1, 0, 1]))
    field = model.mask_decoder.decode_field(
        features.image_embeddings,
        model.pe.image_pe(),
        model.encode_prompts(prompts),
        features.fine_features,
    )
    cells = torch.rand(3, 400, 2, generator=torch.Generator().manual_seed(0))
    cells = ((cells * 255).long() + 0.5) / 256
    drawn = field.draw()
    places = (cells * 256).long()
    expected = torch.stack(
        [drawn[row][:, places[row, :, 1], places[row, :, 0]] for row in range(3)]
    )
    found = field.sample(cells)
    # Drawing works at stride 4 and enlarges; between cells a noise image differs
    assert float((found - expected).abs().mean()) < 0.1 * float(expected.std())


@torch.inference_mode()
def test_prompts_do_not_depend_on_their_company(model: OVSAM) -> None:
    features = model.encode_images(torch.randn(1, 3, 512, 512), [(512, 400)])
    box, point = [50.0, 60.0, 150.0, 90.0], [300.0, 310.0]
    both = model.decode_masks(
        features, model.encode_prompts(make_prompts([box], [point]))
    ).mask_logits
    alone = [
        model.decode_masks(features, model.encode_prompts(make_prompts([box], []))).mask_logits,
        model.decode_masks(features, model.encode_prompts(make_prompts([], [point]))).mask_logits,
    ]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["head", "clip", "auto"])
def test_names_in_every_mode(model: OVSAM, mode: str) -> None:
    features = model.encode_images(torch.randn(1, 3, 512, 512), [(512, 512)])
    prompts = make_prompts([[100, 200, 220, 280]], [])
    mask_logits = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    text = torch.nn.functional.normalize(torch.randn(7, 2, 384), dim=-1)
    kind = torch.tensor([1, 1, 1, 2, 2, 2, 2])
    fusion = Fusion(mode=mode, category_kind=kind)  # type: ignore[arg-type]
    logits = model.classify(features, mask_logits, prompts, text, fusion)
    assert logits.shape == (1, 8)
    assert bool(logits.isfinite().all())
