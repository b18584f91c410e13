"""The inference form of a model: folded norms, filters channels last, results as before."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts
from torch import Tensor, nn

from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.inference import fold_batch_norms, prepare_for_inference
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.tiny_build import TINY_CONFIG
from ovsam_cli.model.tiny_field import TinyField

TEXT = torch.nn.functional.normalize(
    torch.randn(5, 1, 8, generator=torch.Generator().manual_seed(3)), dim=-1
)
FUSION = Fusion(mode="auto", category_kind=torch.tensor([1, 2, 0, 1, 2]))


def build_model(dtype: torch.dtype = torch.float32) -> OVSAM:
    """Batch norms with statistics of their own, as training leaves them."""
    model = build_small_model(replace(SMALL_CONFIG, trunk_layers=(2, 1, 1, 1)))
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.5, generator=generator)
            module.running_var.uniform_(0.2, 3.0, generator=generator)
    return model.requires_grad_(False).to(dtype)


def label(model: OVSAM, pixels: Tensor) -> tuple[ImageFeatures, Tensor, Tensor]:
    """Features, mask logits and class logits of four prompts."""
    prompts = replace(make_prompts("pbab"), prompt_mask_logits=None, has_mask=None)
    features = model.encode_images(pixels, ((128, 128),) * 2)
    masks = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    return features, masks, model.classify(features, masks, prompts, TEXT, FUSION)


def iter_maps(features: ImageFeatures) -> Iterator[Tensor]:
    yield features.image_embeddings
    yield features.clip_features
    yield from features.fpn_features


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@torch.inference_mode()
def test_results_stay(dtype: torch.dtype, limit: float) -> None:
    model = build_model(dtype)
    pixels = torch.randn(2, 3, 128, 128, dtype=dtype)
    before = model.encode_images(pixels, ((128, 128),) * 2)
    after = prepare_for_inference(model).encode_images(pixels, ((128, 128),) * 2)
    for wanted, found in zip(iter_maps(before), iter_maps(after), strict=True):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < limit


def test_every_norm_is_folded_and_filters_are_channels_last() -> None:
    model = build_model()
    num_norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert num_norms == 3 + 5 * 3 + 4  # stem, blocks, the first blocks' shortcuts
    assert fold_batch_norms(copy.deepcopy(model)) == num_norms
    prepare_for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    filters = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)


@torch.inference_mode()
def test_trunk_maps_leave_channels_last_and_regions_read_rows() -> None:
    """RoIAlign would copy maps that are channels last in every call."""
    model = prepare_for_inference(build_model())
    pixels = torch.randn(2, 3, 128, 128)
    maps = model.backbone(pixels)
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in maps)
    features = model.encode_images(pixels, ((128, 128),) * 2)
    assert features.clip_features.is_contiguous()
    assert all(level.is_contiguous() for level in features.fpn_features)


def test_the_published_keys_stay_in_what_is_saved() -> None:
    """Only the model at hand changes: another one built from the config has the norms."""
    keys = set(build_model().state_dict())
    assert set(prepare_for_inference(build_model()).state_dict()) != keys
    assert set(build_model().state_dict()) == keys


def test_a_bias_before_the_norm_is_kept() -> None:
    parts = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double().eval()
    assert isinstance(parts[1], nn.BatchNorm2d) and parts[1].running_mean is not None
    parts[1].running_mean.normal_()
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    wanted = parts(images)
    assert fold_batch_norms(parts) == 1
    torch.testing.assert_close(parts(images), wanted, rtol=1e-12, atol=1e-12)


def test_models_in_training_are_refused() -> None:
    model = build_model()
    model.backbone.stem[1].train()
    with pytest.raises(ValueError, match="training mode"):
        prepare_for_inference(model)


def test_tiny_has_nothing_to_fold() -> None:
    model = build_ovsam(TINY_CONFIG).eval()
    keys = list(model.state_dict())
    assert list(prepare_for_inference(model).state_dict()) == keys


@torch.inference_mode()
def test_results_of_tiny_stay() -> None:
    """Its figures are those of the form that labels."""
    torch.manual_seed(0)
    model = build_ovsam(TINY_CONFIG).eval()
    prompts = replace(make_prompts("pbab", size=512), prompt_mask_logits=None, has_mask=None)
    prompts = replace(prompts, image_index=torch.zeros(4, dtype=torch.int64))
    pixels = torch.randn(1, 3, 512, 512)
    found = []
    for form in (model, prepare_for_inference(copy.deepcopy(model))):
        features = form.encode_images(pixels, ((512, 512),))
        field = form.mask_decoder.decode_field(
            features.image_embeddings,
            form.pe.image_pe(),
            form.encode_prompts(prompts),
            features.fine_features,
        )
        assert isinstance(field, TinyField)
        found.append(field.draw())
    assert float((found[1] - found[0]).abs().max() / found[0].abs().max()) < 1e-5


@torch.inference_mode()
def test_half_precision_ends_where_results_are_read() -> None:
    """Mask logits, pooled maps and class logits are float32; naming never sees autocast."""
    model = prepare_for_inference(build_model())
    pixels = torch.randn(2, 3, 128, 128)
    prompts = replace(make_prompts("pbab"), prompt_mask_logits=None, has_mask=None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, masks, named = label(model, pixels)
    assert {level.dtype for level in features.fpn_features} == {torch.float32}
    assert features.clip_features.dtype == masks.dtype == named.dtype == torch.float32
    assert not torch.equal(masks.bfloat16().float(), masks)  # more digits than half precision has
    alone = model.classify(features, masks, prompts, TEXT, FUSION)
    assert torch.equal(named, alone)


@torch.inference_mode()
def test_half_precision_is_near_float32() -> None:
    model = prepare_for_inference(build_model())
    for parameter in model.parameters():
        parameter.mul_(0.5)
    pixels = torch.randn(2, 3, 128, 128)
    _, wanted, _ = label(model, pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, found, _ = label(model, pixels)
    assert ((found > 0) == (wanted > 0)).float().mean() > 0.97
