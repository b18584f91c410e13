"""The model in the order of operations of the paper's formulas: what the fast forms must equal.

Every cell is projected, every query is computed, every prompt has its own copy of the image, masks
are drawn at the image's full size. Training uses the fast forms: they are the same mathematics, and
differentiable. Weights are those of the model itself, so any difference is the
rewrite's. One image at a time (spec sections 3 to 6).
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.model.attention import Attention
from ovsam_cli.model.clip2sam import (
    BASE_KIND,
    IMPOSSIBLE_LOGIT,
    Fusion,
    compute_class_logits,
    compute_mask_boxes,
    roi_align,
)
from ovsam_cli.model.clip_encoder import OUTPUT_STRIDE, AttentionPool, ClipTrunk
from ovsam_cli.model.mask_decoder import MaskDecoder, MaskPredictor
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts, PromptEmbeddings
from ovsam_cli.model.two_way import TwoWayBlock, TwoWayTransformer
from ovsam_cli.structures import ImageGeometry


def pool_plainly(pool: AttentionPool, regions: Tensor) -> Tensor:
    """CLIP's attention pool with all its queries, of which one is kept (spec section 6).

    Args:
        pool: the weights.
        regions: (B, C, r, r).

    Returns:
        (B, out_dim) float.
    """
    cells = regions.flatten(2).transpose(1, 2)  # (B, r * r, C)
    tokens = torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)
    tokens = tokens + pool.positional_embedding  # (B, 1 + r * r, C)
    q, k, v = (
        _split_heads(layer(tokens), pool.num_heads)
        for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
    )
    embeddings: Tensor = pool.c_proj(_attend(q, k, v, None))  # (B, 1 + r * r, out_dim)
    return embeddings[:, 0]


def decode_plainly(
    decoder: MaskDecoder,
    image_embeddings: Tensor,
    image_pe: Tensor,
    prompt_embeddings: PromptEmbeddings,
) -> Tensor:
    """SAM's mask decoder on a copy of the image for every prompt (spec section 4.2).

    Args:
        decoder: the weights; one mask a prompt, no IoU head.
        image_embeddings: (I, D, h, w).
        image_pe: (1, D, h, w).
        prompt_embeddings: of B prompts.

    Returns:
        (B, 1, 4h, 4w) mask logits.
    """
    predictor: MaskPredictor = decoder.mask_decoder
    sparse, token_mask = prompt_embeddings.sparse_prompt_embeddings, prompt_embeddings.token_mask
    own = torch.cat([decoder.label_token.weight, predictor.output_tokens()])
    tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)  # (B, own + T, D)
    if token_mask is not None:
        token_mask = F.pad(token_mask, (len(own), 0), value=True)
    index = prompt_embeddings.prompts.image_index
    source = image_embeddings[index] + prompt_embeddings.dense_prompt_embeddings
    grid_hw = source.shape[-2:]
    key_pe = image_pe.repeat_interleave(len(tokens), dim=0).flatten(2).transpose(1, 2)
    tokens, keys = _transform_plainly(predictor.transformer, tokens, source, key_pe, token_mask)
    maps = keys.transpose(1, 2).reshape(len(keys), -1, *grid_hw)  # (B, D, h, w)
    upscaled = predictor.output_upscaling(maps)  # (B, C, 4h, 4w)
    weights = predictor.output_hypernetworks_mlps[0](tokens[:, 1])  # (B, C)
    decoder.label_mlp(tokens[:, 0])  # computed by the reference too, and multiplied by zero
    logits = weights[:, None] @ upscaled.flatten(2)  # (B, 1, 16 * h * w)
    masks: Tensor = logits.view(len(logits), 1, *upscaled.shape[-2:])
    return masks


def _transform_plainly(
    transformer: TwoWayTransformer,
    tokens: Tensor,
    source: Tensor,
    key_pe: Tensor,
    token_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The two-way transformer, keys and their encoding (B, M, D) a prompt."""
    token_pe, keys = tokens, source.flatten(2).transpose(1, 2)
    for layer in transformer.layers:
        block = cast(TwoWayBlock, layer)
        q = tokens if block.is_first else tokens + token_pe
        mixed = attend_plainly(block.self_attn, q, q, tokens, token_mask)
        tokens = block.norm1(mixed if block.is_first else tokens + mixed)
        to_image = block.cross_attn_token_to_image
        seen = attend_plainly(to_image, tokens + token_pe, keys + key_pe, keys, None)
        tokens = block.norm2(tokens + seen)
        tokens = block.norm3(tokens + block.mlp(tokens))
        to_tokens = block.cross_attn_image_to_token
        read = attend_plainly(to_tokens, keys + key_pe, tokens + token_pe, tokens, token_mask)
        keys = block.norm4(keys + read)
    last = transformer.final_attn_token_to_image
    seen = attend_plainly(last, tokens + token_pe, keys + key_pe, keys, None)
    normed: Tensor = transformer.norm_final_attn(tokens + seen)
    return normed, keys


def attend_plainly(
    attention: Attention, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V of projected (B, Tq, D), (B, Tk, D), (B, Tk, D): (B, Tq, D)."""
    num_heads = attention.num_heads
    heads_q = _split_heads(attention.q_proj(q), num_heads)
    heads_k = _split_heads(attention.k_proj(k), num_heads)
    heads_v = _split_heads(attention.v_proj(v), num_heads)
    output: Tensor = attention.out_proj(_attend(heads_q, heads_k, heads_v, key_mask))
    return output


def upscale_plainly(mask_logits: Tensor, geometry: ImageGeometry) -> Tensor:
    """Masks at the image's own size, by two bilinear steps over all pixels (spec section 4.3).

    Args:
        mask_logits: (B, 1, R, R), padded model frame.
        geometry: of the image.

    Returns:
        (B, H, W) bool, original frame.
    """
    height, width = geometry.input_hw
    side = geometry.model_size
    frame = F.interpolate(mask_logits, (side, side), mode="bilinear")
    full = F.interpolate(frame[..., :height, :width], geometry.original_hw, mode="bilinear")
    return full[:, 0].sigmoid() > 0.5


def classify_plainly(
    model: OVSAM,
    features: ImageFeatures,
    mask_logits: Tensor,
    prompts: ModelPrompts,
    text_embeddings: Tensor,
    fusion: Fusion,
) -> Tensor:
    """Names of B masks by both branches, joined as probabilities (spec sections 5 and 6).

    Args:
        model: of the published kind, with CLIP's trunk.
        features: of the images.
        mask_logits: (B, 1, R, R).
        prompts: of the B masks.
        text_embeddings: (K, S, text_dim), L2-normalized.
        fusion: the kinds of the categories, CLIP's shares.

    Returns:
        (B, K + 1) log-probabilities, background last.
    """
    trunk = cast(ClipTrunk, model.backbone)
    mask_boxes = compute_mask_boxes(mask_logits, model.config.model_size)
    boxes = torch.where(prompts.has_box[:, None], prompts.model_boxes_xyxy, mask_boxes)
    index = prompts.image_index
    regions = roi_align(features.clip_features, boxes, index, 1 / OUTPUT_STRIDE, trunk.roi_size)
    embeddings = pool_plainly(trunk.head, regions)
    scale = model.config.logit_scale
    clip_probs = compute_class_logits(embeddings, text_embeddings, scale).softmax(dim=-1)
    head = model.mask_decoder.roi_conv
    embeddings = head.embed_regions(features.fpn_features, mask_boxes, index)
    head_probs = compute_class_logits(embeddings, text_embeddings, scale).softmax(dim=-1)
    assert fusion.category_kind is not None  # both branches: checked when the Fusion was made
    kind = F.pad(fusion.category_kind, (0, 1), value=BASE_KIND)
    share = torch.where(kind == BASE_KIND, fusion.alpha, fusion.beta)  # (K + 1,)
    coarse = F.interpolate(mask_logits, features.clip_features.shape[-2:], mode="bilinear")
    shares = share * (coarse > 0).flatten(1).any(dim=1, keepdim=True)  # (B, K + 1)
    fused = (head_probs ** (1 - shares) * clip_probs**shares).log()
    return torch.where(kind == 0, IMPOSSIBLE_LOGIT, fused)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, T, C) -> (B, heads, T, C / heads)."""
    num_prompts, num_tokens, _ = tokens.shape
    return tokens.view(num_prompts, num_tokens, num_heads, -1).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """(B, heads, T, C / heads) queries, keys, values -> (B, T, C)."""
    logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])  # (B, heads, Tq, Tk)
    if key_mask is not None:
        logits = logits.masked_fill(~key_mask[:, None, None], float("-inf"))
    return (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
