"""A small model with the published one's structure, and prompts for it."""

from dataclasses import replace

import torch
from torch import nn

from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.clip_encoder import ClipTrunk, build_clip_trunk
from ovsam_cli.model.config import PRESETS, OVSAMConfig
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.prompt_encoder import ModelPrompts

# Published depths, hence the published keys; the narrowest sizes that work.
NARROW_CONFIG = replace(
    PRESETS["rn50x16"],
    model_size=64,
    trunk_width=2,
    trunk_heads=2,
    trunk_image_size=64,
    fpn_channels=(8, 16, 32, 64),
    fpn_dim=8,
    neck_dim=8,
    neck_heads=2,
    neck_window=3,
    grid_size=4,
    embed_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=16,
    text_dim=8,
)
SMALL_CONFIG = replace(
    NARROW_CONFIG,
    model_size=128,
    trunk_layers=(1, 1, 1, 1),
    grid_size=8,
    neck_depth=2,
    embed_dim=32,
)


def build_small_model(config: OVSAMConfig = SMALL_CONFIG) -> OVSAM:
    """Random but fixed weights of a size that lets every path matter."""
    torch.manual_seed(0)
    model = build_ovsam(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_prompts(kinds: str, *, size: int = 128, num_points: int = 3) -> ModelPrompts:
    """One random prompt a letter: p point, n positive and negative points, b box, a point in a
    box, m mask alone, q point with mask. Images alternate between 0 and 1.
    """
    generator = torch.Generator().manual_seed(1)
    count = len(kinds)
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * size
    labels = torch.full((count, num_points), -1)
    for row, kind in enumerate(kinds):
        if kind in "paq":
            labels[row, row % num_points] = 1  # filler may stand anywhere
        elif kind == "n":
            labels[row, :2] = torch.tensor([1, 0])
    has_box = torch.tensor([kind in "ba" for kind in kinds], dtype=torch.bool)
    side = size // 4
    return ModelPrompts(
        image_index=torch.arange(count) % 2,
        point_coords=torch.rand(count, num_points, 2, generator=generator) * size,
        point_labels=labels,
        model_boxes_xyxy=corners.reshape(count, 4) * has_box[:, None],
        has_box=has_box,
        prompt_mask_logits=torch.randn(count, 1, side, side, generator=generator),
        has_mask=torch.tensor([kind in "mq" for kind in kinds], dtype=torch.bool),
    )


def take_prompt(prompts: ModelPrompts, row: int) -> ModelPrompts:
    """One prompt as it would come alone: no filler, no parts it does not have."""
    only = slice(row, row + 1)
    is_point = prompts.point_labels[row] >= 0
    masks = prompts.prompt_mask_logits
    has_mask = prompts.has_mask is not None and bool(prompts.has_mask[row])
    return ModelPrompts(
        image_index=prompts.image_index[only],
        point_coords=prompts.point_coords[only, is_point],
        point_labels=prompts.point_labels[only, is_point],
        model_boxes_xyxy=prompts.model_boxes_xyxy[only],
        has_box=prompts.has_box[only],
        prompt_mask_logits=masks[only] if has_mask and masks is not None else None,
    )


def make_same_trunks() -> tuple[ClipTrunk, nn.Module]:
    """Our CLIP trunk of 96 pixels and open_clip's, with the same weights."""
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(0)
    theirs = ModifiedResNet([1, 2, 1, 1], output_dim=24, heads=8, image_size=96, width=8).eval()
    for tensor in theirs.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.05, 0.3)
    ours = build_clip_trunk(layers=(1, 2, 1, 1), width=8, num_heads=8, image_size=96, text_dim=24)
    renamed = {}
    for key, tensor in theirs.state_dict().items():
        for number in (1, 2, 3):
            key = (
                key.replace(f"conv{number}", f"stem.{3 * number - 3}") if key[:4] == "conv" else key
            )
            key = key.replace(f"bn{number}", f"stem.{3 * number - 2}") if key[:2] == "bn" else key
        renamed[key.replace("attnpool", "head")] = tensor
    ours.load_state_dict(renamed)
    return ours, theirs
