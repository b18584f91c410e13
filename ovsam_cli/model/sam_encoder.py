"""SAM's ViT image encoder, the teacher of the SAM2CLIP stage; key names as in SAM's files."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ovsam_cli.model.sam2clip import VitBlock, build_output_neck

PATCH_SIZE = 16


class PatchEmbed(nn.Module):
    """Patches of the image -> tokens, under the name `proj`."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, pixels: Tensor) -> Tensor:
        """(I, 3, S, S) -> (I, S / 16, S / 16, C)."""
        tokens: Tensor = self.proj(pixels)
        return tokens.permute(0, 2, 3, 1)


class SamEncoder(nn.Module):
    """SAM's image encoder; attribute names are those under `image_encoder.` of SAM's files.

    Args:
        model_size: side of the square model frame in pixels.
        embed_dim: C, size of a token.
        depth: number of ViT blocks.
        num_heads: heads.
        global_blocks: blocks that attend over the whole grid.
        window_size: side of the other blocks' windows.
        out_dim: channels of the image embedding.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        global_blocks: Collection[int],
        model_size: int = 1024,
        window_size: int = 14,
        out_dim: int = 256,
    ) -> None:
        super().__init__()
        grid_size = model_size // PATCH_SIZE
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid_size, grid_size, embed_dim))
        self.blocks = nn.ModuleList(
            VitBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_dim=4 * embed_dim,
                grid_size=grid_size,
                window_size=0 if index in global_blocks else window_size,
            )
            for index in range(depth)
        )
        self.neck = build_output_neck(embed_dim, out_dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalized and padded (I, 3, S, S) -> image embeddings (I, out_dim, S / 16, S / 16)."""
        grid = self.patch_embed(pixels) + self.pos_embed  # (I, h, w, C)
        for block in self.blocks:
            grid = block(grid)
        embeddings: Tensor = self.neck(grid.permute(0, 3, 1, 2))
        return embeddings


def build_sam_encoder(size: str) -> SamEncoder:
    """SAM's published sizes, random weights.

    Args:
        size: `vit_b`, `vit_l` or `vit_h`.

    Raises:
        ValueError: another size.
    """
    if size == "vit_b":
        return SamEncoder(embed_dim=768, depth=12, num_heads=12, global_blocks=(2, 5, 8, 11))
    if size == "vit_l":
        return SamEncoder(embed_dim=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23))
    if size == "vit_h":
        return SamEncoder(embed_dim=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31))
    raise ValueError(f"SAM encoder size ({size!r}) must be vit_b, vit_l or vit_h")
