"""CLIP's ModifiedResNet as image trunk, its attention pool for regions (spec sections 3.1, 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import roi_align

OUTPUT_STRIDE = 32  # of the last stage, in input pixels


class AttentionPool(nn.Module):
    """CLIP's attention pool, reduced to the one query that is used.

    Args:
        in_channels: channels of the pooled map.
        grid_size: cells a side of the pooled map.
        num_heads: attention heads.
        out_dim: size of the result.
    """

    _held_keys: Tensor | None
    _held_values: Tensor | None

    def __init__(self, *, in_channels: int, grid_size: int, num_heads: int, out_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = in_channels // num_heads
        self.positional_embedding = nn.Parameter(
            torch.randn(grid_size**2 + 1, in_channels) / in_channels**0.5
        )
        self.k_proj = nn.Linear(in_channels, in_channels)
        self.q_proj = nn.Linear(in_channels, in_channels)
        self.v_proj = nn.Linear(in_channels, in_channels)
        self.c_proj = nn.Linear(in_channels, out_dim)
        # Made by `hold_positions`; they move with the module but are not among its weights.
        self.register_buffer("_held_keys", None, persistent=False)
        self.register_buffer("_held_values", None, persistent=False)

    def hold_positions(self) -> None:
        """Project the positions once and for all regions to come; the weights must not change."""
        self._held_keys, self._held_values = self._project_positions()

    def forward(self, regions: Tensor) -> Tensor:
        """Pool (B, C, r, r) regions to (B, out_dim).

        Only the mean token asks, so keys and values of the cells need no projection:
        q . (W_k t) = (W_k^T q) . t and sum a W_v t = W_v sum a t. The keys' bias shifts all
        logits of a query alike and drops out of the softmax. Nor are the tokens ever made: the
        positions have keys and values of their own, the same for every region, and what is linear
        in the mean token is the mean over the cells. 60 times fewer operations.
        """
        cells = regions.flatten(2)  # (B, C, r * r)
        num_prompts, num_channels, num_cells = cells.shape
        split = (self.num_heads, self.head_dim, num_channels)
        keys, values = self._held_keys, self._held_values
        if keys is None or values is None:
            keys, values = self._project_positions()

        mean = cells.mean(dim=2) + self.positional_embedding[0]
        query = self.q_proj(mean) * self.head_dim**-0.5
        query = query.view(num_prompts, self.num_heads, self.head_dim).transpose(0, 1)
        absorbed = torch.bmm(query, self.k_proj.weight.view(split))  # (heads, B, C)
        logits = torch.bmm(absorbed.transpose(0, 1), cells)  # (B, heads, r * r)
        logits = torch.cat([logits.mean(dim=2, keepdim=True), logits], dim=2)
        weights = (logits + torch.bmm(query, keys).transpose(0, 1)).softmax(dim=-1)
        of_cells = weights[..., 1:] + weights[..., :1] / num_cells  # (B, heads, r * r)
        seen = torch.bmm(of_cells, cells.transpose(1, 2)).transpose(0, 1)  # (heads, B, C)
        pooled = torch.bmm(seen, self.v_proj.weight.view(split).transpose(1, 2))
        pooled = torch.baddbmm(pooled, weights.transpose(0, 1), values)  # (heads, B, C / heads)
        embeddings: Tensor = self.c_proj(pooled.transpose(0, 1).flatten(1) + self.v_proj.bias)
        return embeddings  # (B, out_dim)

    def _project_positions(self) -> tuple[Tensor, Tensor]:
        """Keys (heads, C / heads, 1 + r * r) and values (heads, 1 + r * r, C / heads), no bias."""
        positions = self.positional_embedding  # (1 + r * r, C), the mean token's first
        exact = torch.promote_types(positions.dtype, torch.float32)
        keys, values = (
            (projection.weight.to(exact) @ positions.to(exact).T)
            .view(self.num_heads, self.head_dim, -1)
            .to(positions.dtype)
            for projection in (self.k_proj, self.v_proj)
        )
        return keys, values.transpose(1, 2)


class ClipTrunk(nn.Module):
    """The frozen CLIP image tower under the official names `stem`, `layer1..4`, `head`.

    Always in evaluation mode: the published model never trains it.

    Args:
        stem: three convolutions with norms, built.
        stages: the four residual stages, built.
        head: attention pool for regions, built.
        roi_size: cells a side of a pooled region; the head's grid.
    """

    def __init__(
        self, *, stem: nn.Module, stages: Sequence[nn.Module], head: AttentionPool, roi_size: int
    ) -> None:
        super().__init__()
        self.stem = stem
        self.pool = nn.AvgPool2d(2)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head = head
        self.roi_size = roi_size
        self.eval()

    def train(self, mode: bool = True) -> ClipTrunk:
        """Stay in evaluation mode, whatever the rest of the model does."""
        super().train(False)
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(I, 3, S, S) -> maps at strides 4, 8, 16, 32, finest first."""
        maps = self.pool(self.stem(pixels))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
            outputs.append(maps)
        return tuple(outputs)

    def embed_regions(
        self, clip_features: Tensor, boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Pool boxes of the last map by attention.

        Args:
            clip_features: (I, C, h, w), the last of `forward`'s maps.
            boxes_xyxy: (B, 4) float, input frame.
            image_index: (B,) int64.

        Returns:
            (B, text_dim) float, not normalized.
        """
        regions = roi_align(
            clip_features, boxes_xyxy, image_index, 1 / OUTPUT_STRIDE, self.roi_size
        )
        embeddings: Tensor = self.head(regions)
        return embeddings


def build_clip_trunk(
    *,
    layers: Sequence[int],
    width: int,
    num_heads: int,
    image_size: int,
    text_dim: int,
) -> ClipTrunk:
    """Take open_clip's ModifiedResNet apart and name its pieces as the official weights do.

    Args:
        layers: blocks of each stage.
        width: channels of the first stage.
        num_heads: of the attention pool.
        image_size: CLIP's own input size, which fixes the attention pool's grid.
        text_dim: size of a region embedding.
    """
    from open_clip.modified_resnet import ModifiedResNet

    tower = ModifiedResNet(
        layers=list(layers),
        output_dim=1,  # its own attention pool is thrown away
        heads=1,
        image_size=OUTPUT_STRIDE,
        width=width,
    )
    names = [f"{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn", "act")]
    grid_size = image_size // OUTPUT_STRIDE
    return ClipTrunk(
        stem=nn.Sequential(*(getattr(tower, name) for name in names)),
        stages=[tower.layer1, tower.layer2, tower.layer3, tower.layer4],
        head=AttentionPool(
            in_channels=width * OUTPUT_STRIDE,
            grid_size=grid_size,
            num_heads=num_heads,
            out_dim=text_dim,
        ),
        roi_size=grid_size,
    )
