"""The necks of `tiny`: trunk maps -> image embedding, trunk maps -> fine features.

`tiny` has the paper's stages at a small size: a frozen trunk, a neck to one image embedding, SAM's
prompt encoder and two-way transformer, a hypernetwork. Three things are added, because it is
trained on few samples and on pictures that are no photographs: fine trunk features, what the prompt
itself says about a place, and the similarity of places to the prompt's seeds. Untrained it already
answers a box with the part of its ellipse that looks alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import LayerNorm2d

_EPS = 1e-3  # of a channel's deviation, as a share of the map's mean magnitude


def standardize(maps: Tensor) -> Tensor:
    """Mean 0 and deviation 1 of every channel of every image, (I, C, h, w).

    What light, lens and style do to a whole channel is not what the picture shows.
    """
    deviation, mean = torch.std_mean(maps, dim=(2, 3), keepdim=True)
    return (maps - mean) / (deviation + _EPS * maps.abs().mean() + 1e-5)


class ContextBlock(nn.Module):
    """Depthwise 5x5, layer norm, two 1x1 convolutions, scaled residual: lets cells see around."""

    def __init__(self, embed_dim: int, *, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(embed_dim, embed_dim, 5, padding=2, groups=embed_dim)
        self.norm = LayerNorm2d(embed_dim)
        self.lin1 = nn.Conv2d(embed_dim, embed_dim * expansion, 1)
        self.lin2 = nn.Conv2d(embed_dim * expansion, embed_dim, 1)
        self.scale = nn.Parameter(torch.full((embed_dim, 1, 1), 0.1))

    def forward(self, maps: Tensor) -> Tensor:
        """(I, D, h, w) -> (I, D, h, w)."""
        hidden = F.relu(self.lin1(self.norm(self.depthwise(maps))))
        output: Tensor = maps + self.scale * self.lin2(hidden)
        return output


class TinyNeck(nn.Module):
    """Trunk maps of strides 4 to 32 -> one image embedding at stride 16.

    As in the SAM2CLIP neck every level becomes tokens of one grid by a biased projection, the
    levels are summed, and blocks mix them.

    Args:
        in_channels: of the trunk maps, finest first.
        embed_dim: D.
        num_blocks: context blocks.
    """

    def __init__(self, *, in_channels: Sequence[int], embed_dim: int, num_blocks: int) -> None:
        super().__init__()
        kernels = (4, 2, 1, 1)
        self.patch_embeds = nn.ModuleList(
            nn.Conv2d(channels, embed_dim, kernel, kernel)
            for channels, kernel in zip(in_channels, kernels, strict=True)
        )
        self.level_norms = nn.ModuleList(LayerNorm2d(embed_dim) for _ in kernels)
        self.blocks = nn.Sequential(*(ContextBlock(embed_dim) for _ in range(num_blocks)))
        self.norm = LayerNorm2d(embed_dim)

    def forward(self, trunk_maps: Sequence[Tensor]) -> Tensor:
        """Four maps (I, C_l, h_l, w_l), finest first -> (I, D, h, w) at the third map's size."""
        size = trunk_maps[2].shape[-2:]
        trunk_maps = [standardize(maps) for maps in trunk_maps]
        levels = []
        for embed, norm, maps in zip(self.patch_embeds, self.level_norms, trunk_maps, strict=True):
            level = norm(embed(maps))
            if level.shape[-2:] != size:
                level = F.interpolate(level, size, mode="bilinear", align_corners=False)
            levels.append(level)
        fused = torch.stack(levels).sum(dim=0)
        output: Tensor = self.norm(self.blocks(fused))
        return output


class FineNeck(nn.Module):
    """Trunk maps -> fine features at stride 4, and the trunk's own finest map behind them.

    Args:
        in_channels: of the trunk maps, finest first.
        fine_dim: channels of the fine features.
    """

    def __init__(self, *, in_channels: Sequence[int], fine_dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(size, fine_dim, 1) for size in in_channels)
        self.mixes = nn.ModuleList(nn.Conv2d(fine_dim, fine_dim, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(LayerNorm2d(fine_dim) for _ in range(3))
        self.project = nn.Conv2d(fine_dim, fine_dim, 1)

    def forward(self, trunk_maps: Sequence[Tensor]) -> Tensor:
        """Four maps (I, C_l, h_l, w_l), finest first -> (I, fine_dim + C_0, h_0, w_0)."""
        trunk_maps = [standardize(maps) for maps in trunk_maps]
        levels = [conv(maps) for conv, maps in zip(self.laterals, trunk_maps, strict=True)]
        merged = levels[3]
        for level in (2, 1, 0):
            size = levels[level].shape[-2:]
            coarse = F.interpolate(merged, size, mode="bilinear", align_corners=False)
            merged = F.relu(self.norms[level](self.mixes[level](levels[level] + coarse)))
        return torch.cat([self.project(merged), trunk_maps[0]], dim=1)
