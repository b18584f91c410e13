"""Parts of the network: the formulas' order of operations, and the exact rewrites (C4, C5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ovsam_cli.benchmarking.comparison import Comparison, Parity, time_in_turns
from ovsam_cli.benchmarking.grid_filter import make_geometry
from ovsam_cli.benchmarking.plain_model import decode_plainly, pool_plainly
from ovsam_cli.benchmarking.ready_model import SEED, SMALL, build_model
from ovsam_cli.benchmarking.samples import draw_boxes, make_box_prompts
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings
from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.model.clip_encoder import AttentionPool
from ovsam_cli.model.config import PRESETS
from ovsam_cli.model.inference import prepare_for_inference
from ovsam_cli.model.mask_decoder import MaskDecoder

RELATIVE_LIMIT = 1e-5  # largest difference over largest value, float32
PUBLISHED = PRESETS["rn50x16"]
# The published mask decoder on a trunk that costs nothing to make.
DECODER = replace(
    SMALL,
    model_size=PUBLISHED.model_size,
    grid_size=PUBLISHED.grid_size,
    embed_dim=PUBLISHED.embed_dim,
    decoder_heads=PUBLISHED.decoder_heads,
    decoder_mlp_dim=PUBLISHED.decoder_mlp_dim,
)
TRUNK = replace(SMALL, trunk_layers=PUBLISHED.trunk_layers, trunk_width=PUBLISHED.trunk_width)


@torch.inference_mode()
def compare_network_parts(settings: BenchSettings) -> list[Comparison]:
    """C4, C5: attention pool per region, decoder per prompt; sizes of the published model."""
    return [*compare_pools(settings), *compare_decoders(settings)]


@torch.inference_mode()
def compare_pools(settings: BenchSettings) -> list[Comparison]:
    """C4: CLIP's attention pool with all its queries / with the one that is kept."""
    config = SMALL if settings.sizes == MINIMAL else PUBLISHED
    count, device = settings.sizes.pool_regions, settings.device
    generator = torch.Generator().manual_seed(SEED)
    pool = AttentionPool(
        in_channels=config.trunk_width * 32,
        grid_size=config.trunk_image_size // 32,
        num_heads=config.trunk_heads,
        out_dim=config.text_dim,
    ).to(device)
    pool.hold_positions()
    side = config.trunk_image_size // 32
    shape = (count, config.trunk_width * 32, side, side)
    regions = torch.randn(shape, generator=generator).to(device)
    return [
        _compare(
            settings,
            "C4",
            f"attention pool, {count} regions of {side} x {side} x {shape[1]}",
            lambda: pool_plainly(pool, regions),
            lambda: cast(Tensor, pool(regions)),
            target=20.0 if config is PUBLISHED else None,
        )
    ]


@torch.inference_mode()
def compare_decoders(settings: BenchSettings) -> list[Comparison]:
    """C5: the mask decoder on a copy of the image for every prompt / on the image itself."""
    config = SMALL if settings.sizes == MINIMAL else DECODER
    count, device = settings.sizes.decoder_prompts, settings.device
    model = build_model(config).to(device)
    geometry = make_geometry(settings.sizes.vga_hw)
    boxes = draw_boxes(geometry.original_hw, count=count, seed=SEED)
    prompts = to_model_prompts(make_box_prompts(boxes), [geometry], device=device)
    embeddings, image_pe = model.encode_prompts(prompts), model.pe.image_pe()
    generator = torch.Generator().manual_seed(SEED)
    shape = (1, config.embed_dim, config.grid_size, config.grid_size)
    image = torch.randn(shape, generator=generator).to(device)
    decoder = cast(MaskDecoder, model.mask_decoder)
    return [
        _compare(
            settings,
            "C5",
            f"mask decoder, {count} boxes on {shape[2]} x {shape[3]} x {shape[1]}",
            lambda: decode_plainly(decoder, image, image_pe, embeddings),
            lambda: decoder(image, image_pe, embeddings, None).mask_logits,
            target=2.0 if config is DECODER else None,
        )
    ]


@torch.inference_mode()
def compare_trunks(settings: BenchSettings) -> list[Comparison]:
    """The image trunk as it was trained / batch norms folded and filters channels last."""
    is_minimal = settings.sizes == MINIMAL
    side = SMALL.model_size if is_minimal else PUBLISHED.model_size
    config = SMALL if is_minimal else TRUNK
    plain = build_model(config).to(settings.device).backbone
    ours = prepare_for_inference(build_model(config)).to(settings.device).backbone
    generator = torch.Generator().manual_seed(SEED)
    pixels = torch.randn((1, 3, side, side), generator=generator).to(settings.device)
    return [
        _compare(
            settings,
            "",
            f"image trunk, {side} x {side}",
            lambda: plain(pixels)[-1],
            lambda: ours(pixels.contiguous(memory_format=torch.channels_last))[-1],
            target=None,
        )
    ]


def _compare(
    settings: BenchSettings,
    key: str,
    name: str,
    baseline: Callable[[], Tensor],
    ours: Callable[[], Tensor],
    *,
    target: float | None,
) -> Comparison:
    """Time two ways to a tensor; equal to 1e-5 of the largest value."""
    expected, found = baseline(), ours()
    difference = float((found - expected).abs().max() / expected.abs().max())
    theirs, own = time_in_turns(baseline, ours, rounds=settings.rounds, clock=settings.clock)
    parity = Parity("largest difference / largest value", difference, RELATIVE_LIMIT)
    return Comparison(key, name, settings.clock, theirs, own, (parity,), target=target)
