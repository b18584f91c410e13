"""The rewrites against the order of operations of the formulas: float64 to 1e-9, float32 to 1e-5.

Figures are relative to the largest value of the plain form's result.
"""

from dataclasses import replace

import pytest
import torch
from model_builders import SMALL_CONFIG, build_small_model, make_prompts
from torch import Tensor

from ovsam_cli.benchmarking.plain_model import (
    attend_plainly,
    classify_plainly,
    decode_plainly,
    pool_plainly,
)
from ovsam_cli.model.attention import Attention
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.clip_encoder import AttentionPool
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.model.two_way import MIN_SHARING

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["64", "32"])


def measure_difference(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def build_model(dtype: torch.dtype) -> OVSAM:
    """Its images' embeddings and weights of the size that training gives them."""
    torch.manual_seed(0)
    model = build_small_model(replace(SMALL_CONFIG, logit_scale=1.0))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.to(dtype)


def make_features(model: OVSAM, num_images: int, dtype: torch.dtype) -> ImageFeatures:
    pixels = torch.randn(num_images, 3, 128, 128, dtype=dtype)
    return model.encode_images(pixels, ((128, 128),) * num_images)


def without_masks(prompts: ModelPrompts, dtype: torch.dtype) -> ModelPrompts:
    return replace(
        prompts,
        point_coords=prompts.point_coords.to(dtype),
        model_boxes_xyxy=prompts.model_boxes_xyxy.to(dtype),
        prompt_mask_logits=None,
        has_mask=None,
    )


@dtypes
@torch.inference_mode()
def test_attention_pool(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    pool = AttentionPool(in_channels=64, grid_size=5, num_heads=4, out_dim=24).to(dtype)
    regions = torch.randn(3, 64, 5, 5, dtype=dtype)
    wanted, keys = pool_plainly(pool, regions), set(pool.state_dict())
    assert measure_difference(pool(regions), wanted) < LIMITS[dtype]
    pool.hold_positions()
    assert measure_difference(pool(regions), wanted) < LIMITS[dtype]
    assert set(pool.state_dict()) == keys


@dtypes
@pytest.mark.parametrize("num_tokens", [1, 4, 7, 30], ids="{} tokens".format)
@torch.inference_mode()
def test_attention_between_tokens_and_image(num_tokens: int, dtype: torch.dtype) -> None:
    """Few tokens are absorbed, many take the plain form."""
    torch.manual_seed(0)
    attention = Attention(embed_dim=32, inner_dim=16, num_heads=2).to(dtype)
    assert attention.absorbs(num_tokens) == (num_tokens < 7)
    keys, key_pe = torch.randn(3, 50, 32, dtype=dtype), torch.randn(50, 32, dtype=dtype)
    tokens, values = torch.randn(2, 3, num_tokens, 32, dtype=dtype)
    mask = torch.rand(3, num_tokens) > 0.3
    mask[:, 0] = True
    found = attention.tokens_to_image(tokens, keys, key_pe)
    wanted = attend_plainly(attention, tokens, keys + key_pe, keys, None)
    assert measure_difference(found, wanted) < LIMITS[dtype]
    for token_mask in (None, mask):
        found = attention.image_to_tokens(keys, key_pe, tokens, values, token_mask)
        read = attend_plainly(attention, keys + key_pe, tokens, values, token_mask)
        assert measure_difference(found, keys + read) < LIMITS[dtype]


@dtypes
@torch.inference_mode()
def test_attention_with_a_shared_image(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attention = Attention(embed_dim=32, inner_dim=16, num_heads=2).to(dtype)
    cells, pe = torch.randn(2, 50, 32, dtype=dtype)
    tokens, values = torch.randn(2, 5, 6, 32, dtype=dtype)
    mask = torch.rand(5, 6) > 0.3
    mask[:, 0] = True
    keys = cells.expand(5, -1, -1)
    found = attention.tokens_to_shared(tokens, cells, pe)
    wanted = attend_plainly(attention, tokens, keys + pe, keys, None)
    assert measure_difference(found, wanted) < LIMITS[dtype]
    for token_mask in (None, mask):
        found = attention.shared_to_tokens(cells, pe, tokens, values, token_mask)
        read = attend_plainly(attention, keys + pe, tokens, values, token_mask)
        assert measure_difference(found, keys + read) < LIMITS[dtype]


@dtypes
@pytest.mark.parametrize("num_images", [1, 2])
@pytest.mark.parametrize("kinds", ["b", "pb", "bbbbbb", "pnbabpanbp"])
@torch.inference_mode()
def test_decoder(kinds: str, num_images: int, dtype: torch.dtype) -> None:
    """Few prompts an image and many, of one kind and of several, of one image and of two."""
    model = build_model(dtype)
    features = make_features(model, num_images, dtype)
    prompts = without_masks(make_prompts(kinds), dtype)
    prompts = replace(prompts, image_index=prompts.image_index % num_images)
    embeddings = model.encode_prompts(prompts)
    found = model.decode_masks(features, embeddings).mask_logits
    wanted = decode_plainly(
        model.mask_decoder, features.image_embeddings, model.pe.image_pe(), embeddings
    )
    assert measure_difference(found, wanted) < LIMITS[dtype]


@dtypes
@torch.inference_mode()
def test_decoder_with_mask_prompts(dtype: torch.dtype) -> None:
    model = build_model(dtype)
    features = make_features(model, 2, dtype)
    prompts = make_prompts("mqbpmqbp")
    assert prompts.prompt_mask_logits is not None
    prompts = replace(prompts, prompt_mask_logits=prompts.prompt_mask_logits.to(dtype))
    embeddings = model.encode_prompts(prompts)
    found = model.decode_masks(features, embeddings).mask_logits
    wanted = decode_plainly(
        model.mask_decoder, features.image_embeddings, model.pe.image_pe(), embeddings
    )
    assert measure_difference(found, wanted) < LIMITS[dtype]


@torch.inference_mode()
def test_grouping_does_not_matter() -> None:
    """Prompts of two images in one call, in two calls, and one by one: the same masks."""
    model = build_model(torch.float64)
    features = make_features(model, 2, torch.float64)
    prompts = without_masks(make_prompts("b" * 8), torch.float64)
    together = model.decode_masks(features, model.encode_prompts(prompts)).mask_logits
    for rows in (torch.tensor([0, 2, 4, 6]), torch.tensor([5, 0, 1]), torch.tensor([3])):
        some = model.decode_masks(features, model.encode_prompts(prompts.take(rows))).mask_logits
        assert measure_difference(some, together[rows]) < 1e-9
    rows = torch.tensor([1, 3, 5, 7])  # of the second image, whose layer is shared when it is alone
    assert len(rows) >= MIN_SHARING
    alone = replace(features, image_embeddings=features.image_embeddings[1:])
    own = replace(prompts.take(rows), image_index=torch.zeros(4, dtype=torch.int64))
    some = model.decode_masks(alone, model.encode_prompts(own)).mask_logits
    assert measure_difference(some, together[rows]) < 1e-9


@torch.inference_mode()
def test_shared_cells_are_projected_once() -> None:
    """The first layer sees I images, whatever the number of prompts; it never sees a copy."""
    model = build_model(torch.float32)
    features = make_features(model, 1, torch.float32)
    layer = model.mask_decoder.mask_decoder.transformer.layers[0]
    seen: list[int] = []
    for part in (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token):
        for projection in (part.q_proj, part.k_proj, part.v_proj):
            projection.register_forward_hook(
                lambda module, inputs, output: seen.append(output.numel())
            )
    model.decode_masks(
        features, model.encode_prompts(without_masks(make_prompts("b" * 12), torch.float32))
    )
    cells, width = 64, 16
    tokens = 12 * 7  # two of the decoder, three of filler, two corners
    assert sorted(seen) == sorted([cells * width] * 3 + [tokens * width] * 3)


@dtypes
@torch.inference_mode()
def test_names(dtype: torch.dtype) -> None:
    model = build_model(dtype)
    features = make_features(model, 2, dtype)
    prompts = without_masks(make_prompts("pbabpa"), dtype)
    masks = torch.randn(6, 1, 32, 32, dtype=dtype)
    masks[3] = -1.0
    text = torch.nn.functional.normalize(torch.randn(5, 2, 8, dtype=dtype), dim=-1)
    fusion = Fusion(mode="auto", category_kind=torch.tensor([1, 2, 0, 1, 2]), alpha=0.1, beta=0.9)
    found = model.classify(features, masks, prompts, text, fusion)
    wanted = classify_plainly(model, features, masks, prompts, text, fusion)
    # Cosines are computed in float32 on both sides.
    assert measure_difference(found, wanted.float()) < 1e-5
