"""The bundled model's sizes, and how its parts make an OVSAM."""

from __future__ import annotations

from ovsam_cli.model.config import OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import PromptEncoder
from ovsam_cli.model.tiny import FineNeck, TinyNeck
from ovsam_cli.model.tiny_decoder import TinyMaskDecoder
from ovsam_cli.model.tiny_regions import TinyBackbone, TinyRegionHead, TrunkPyramid
from ovsam_cli.model.tiny_trunk import STAGE_CHANNELS
from ovsam_cli.model.two_way import TwoWayTransformer

FINE_DIM = 32
HIDDEN_DIM = 32
SEED_DIM = 16
REGION_HIDDEN_DIM = 512
TINY_CONFIG = OVSAMConfig(
    name="tiny",
    trunk="efficientnet-lite0",
    model_size=512,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
    embed_dim=96,
    grid_size=32,
    decoder_depth=2,
    decoder_heads=4,
    decoder_mlp_dim=384,
    iou_head=True,
    num_point_masks=3,
    text_dim=384,
    text_tower="minilm-l6",
    fpn_channels=STAGE_CHANNELS,
    logit_scale=3.0,
    alpha=0.25,
    beta=0.25,
    grid_min_stability=0.5,
    grid_min_iou=0.35,
    neck_depth=2,
)


def build_tiny(config: OVSAMConfig) -> OVSAM:
    """The model with untrained parts; an OVSAM like the published one, at a small size.

    Args:
        config: `TINY_CONFIG`, or one with other sizes.
    """
    side = config.grid_size
    embed_dim = config.embed_dim
    decoder = TinyMaskDecoder(
        embed_dim=embed_dim,
        fine_dim=FINE_DIM,
        hidden_dim=HIDDEN_DIM,
        seed_dim=SEED_DIM,
        num_point_masks=config.num_point_masks,
        model_size=config.model_size,
        transformer=TwoWayTransformer(
            depth=config.decoder_depth,
            embed_dim=embed_dim,
            num_heads=config.decoder_heads,
            mlp_dim=config.decoder_mlp_dim,
        ),
        roi_conv=TinyRegionHead(text_dim=config.text_dim, hidden_dim=REGION_HIDDEN_DIM),
    )
    return OVSAM(
        config=config,
        backbone=TinyBackbone(config.text_dim),
        neck=TinyNeck(
            in_channels=config.fpn_channels, embed_dim=embed_dim, num_blocks=config.neck_depth
        ),
        pe=PromptEncoder(embed_dim=embed_dim, grid_hw=(side, side), model_size=config.model_size),
        fpn_neck=TrunkPyramid(),
        mask_decoder=decoder,
        fine_neck=FineNeck(in_channels=config.fpn_channels, fine_dim=FINE_DIM),
    )
