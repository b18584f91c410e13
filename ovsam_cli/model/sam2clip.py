"""The SAM2CLIP neck: CLIP's four maps -> an image embedding SAM's decoder can read (spec 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.layers import FeedForward, LayerNorm2d

# Elements of the relative-position bias that are made at a time (128 MiB in float32): the
# global block's whole bias would be 1 GiB.
MAX_BIAS_ELEMENTS = 2**25


class RelativeAttention(nn.Module):
    """Self-attention over a square grid with decomposed relative positions.

    Args:
        embed_dim: C.
        num_heads: heads.
        grid_size: L, side of the grid.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, grid_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        head_dim = embed_dim // num_heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid_size - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid_size - 1, head_dim))

    def forward(self, grid: Tensor) -> Tensor:
        """Attend within each (L, L) grid of (B, L, L, C)."""
        batch, side, _, embed_dim = grid.shape
        qkv = self.qkv(grid).view(batch, side * side, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L * L, C / heads)
        rows_a_chunk = max(1, MAX_BIAS_ELEMENTS // (batch * self.num_heads * side**3))
        chunks = [
            F.scaled_dot_product_attention(part, k, v, attn_mask=self._bias(part, first, side))
            for first, part in self._iter_row_chunks(q, side, rows_a_chunk)
        ]
        heads = torch.cat(chunks, dim=2).transpose(1, 2)  # (B, L * L, heads, C / heads)
        output: Tensor = self.proj(heads.reshape(batch, side, side, embed_dim))
        return output

    @staticmethod
    def _iter_row_chunks(q: Tensor, side: int, num_rows: int) -> list[tuple[int, Tensor]]:
        """(first row, its and the next rows' queries) for chunks of `num_rows` grid rows."""
        step = num_rows * side
        starts = range(0, q.shape[2], step)
        return [(start // side, q[:, :, start : start + step]) for start in starts]

    def _bias(self, q: Tensor, first_row: int, side: int) -> Tensor:
        """(B, heads, rows * L, L * L) position bias of the queries of some grid rows.

        The queries are unscaled here, unlike in the attention itself.
        """
        batch, heads, count, head_dim = q.shape
        cells = torch.arange(side, device=q.device)
        offsets = cells[:, None] - cells[None, :] + side - 1  # (L, L): query row, key row
        num_rows = count // side
        by_row = self.rel_pos_h[offsets[first_row : first_row + num_rows]]
        by_column = self.rel_pos_w[offsets]
        grid = q.reshape(batch, heads, num_rows, side, head_dim)
        bias_h = torch.einsum("bnywd,ykd->bnywk", grid, by_row)[..., :, None]
        bias_w = torch.einsum("bnywd,wkd->bnywk", grid, by_column)[..., None, :]
        return (bias_h + bias_w).reshape(batch, heads, count, side * side)


class VitBlock(nn.Module):
    """A pre-norm ViT block of SAM: attention within windows or over the whole grid.

    Args:
        embed_dim: C.
        num_heads: heads.
        mlp_dim: hidden size of the feed-forward layer.
        grid_size: side of the token grid.
        window_size: side of a window; 0 for attention over the whole grid.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, mlp_dim: int, grid_size: int, window_size: int
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = RelativeAttention(
            embed_dim=embed_dim, num_heads=num_heads, grid_size=window_size or grid_size
        )
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = FeedForward(embed_dim, mlp_dim, F.gelu)

    def forward(self, grid: Tensor) -> Tensor:
        """(I, h, w, C) tokens -> the same shape."""
        normed = self.norm1(grid)
        if self.window_size:
            windows = split_windows(normed, self.window_size)
            attended = join_windows(self.attn(windows), self.window_size, grid)
        else:
            attended = self.attn(normed)
        grid = grid + attended
        output: Tensor = grid + self.mlp(self.norm2(grid))
        return output


def split_windows(grid: Tensor, window_size: int) -> Tensor:
    """(I, h, w, C) -> (I * windows, window_size, window_size, C), zero-padded right and bottom.

    Padding takes part in attention unmasked, as the weights were trained.
    """
    images, height, width, embed_dim = grid.shape
    grid = F.pad(grid, (0, 0, 0, -width % window_size, 0, -height % window_size))
    rows, columns = grid.shape[1] // window_size, grid.shape[2] // window_size
    grid = grid.view(images, rows, window_size, columns, window_size, embed_dim)
    return grid.transpose(2, 3).reshape(-1, window_size, window_size, embed_dim)


def join_windows(windows: Tensor, window_size: int, like: Tensor) -> Tensor:
    """Undo `split_windows`: back to the shape (I, h, w, C) of `like`, padding cut off."""
    images, height, width, embed_dim = like.shape
    rows, columns = -(-height // window_size), -(-width // window_size)
    grid = windows.view(images, rows, columns, window_size, window_size, embed_dim)
    grid = grid.transpose(2, 3).reshape(
        images, rows * window_size, columns * window_size, embed_dim
    )
    return grid[:, :height, :width]


class LevelProjection(nn.Module):
    """One trunk map -> tokens of the common grid.

    Args:
        in_channels: channels of the map.
        embed_dim: C.
        ratio: side of the map over side of the grid; below 1 the map is enlarged.
    """

    def __init__(self, *, in_channels: int, embed_dim: int, ratio: float) -> None:
        super().__init__()
        self.projection: nn.Conv2d | nn.ConvTranspose2d
        if ratio >= 1:
            side = int(ratio)
            self.projection = nn.Conv2d(in_channels, embed_dim, kernel_size=side, stride=side)
        else:
            side = int(1 / ratio)
            self.projection = nn.ConvTranspose2d(
                in_channels, embed_dim, kernel_size=side, stride=side
            )

    def forward(self, maps: Tensor) -> Tensor:
        """(I, C_l, h_l, w_l) -> (I, h, w, C)."""
        tokens: Tensor = self.projection(maps)
        return tokens.permute(0, 2, 3, 1)


class Sam2ClipNeck(nn.Module):
    """Five ViT blocks that turn CLIP's maps into SAM's image embedding.

    Args:
        in_channels: channels of the trunk's maps, finest first.
        strides: their strides in input pixels.
        model_size: side of the model frame in pixels.
        grid_size: side of the image embedding.
        embed_dim: C, size of a token.
        depth: blocks; the last attends over the whole grid, the others within windows.
        num_heads: heads.
        window_size: side of a window.
        out_dim: channels of the image embedding.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        strides: Sequence[int],
        model_size: int,
        grid_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        window_size: int,
        out_dim: int,
    ) -> None:
        super().__init__()
        grid_stride = model_size // grid_size
        self.patch_embeds = nn.ModuleList(
            LevelProjection(in_channels=channels, embed_dim=embed_dim, ratio=grid_stride / stride)
            for channels, stride in zip(in_channels, strides, strict=True)
        )
        self.level_encoding = nn.Embedding(len(in_channels), embed_dim)
        self.register_buffer("pos_embed", torch.zeros(1, grid_size, grid_size, embed_dim))
        self.blocks = nn.ModuleList(
            VitBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_dim=4 * embed_dim,
                grid_size=grid_size,
                window_size=window_size if index < depth - 1 else 0,
            )
            for index in range(depth)
        )
        self.neck = build_output_neck(embed_dim, out_dim)

    def forward(self, trunk_maps: Sequence[Tensor]) -> Tensor:
        """Four maps (I, C_l, h_l, w_l), finest first -> (I, out_dim, h, w)."""
        grid = self.pos_embed + self.level_encoding.weight.sum(dim=0)  # (1, h, w, C)
        for project, maps in zip(self.patch_embeds, trunk_maps, strict=True):
            grid = grid + project(maps)
        for block in self.blocks:
            grid = block(grid)
        embeddings: Tensor = self.neck(grid.permute(0, 3, 1, 2))
        return embeddings


def build_output_neck(embed_dim: int, out_dim: int) -> nn.Sequential:
    """SAM's last layers: (I, C, h, w) tokens as a map -> (I, out_dim, h, w)."""
    return nn.Sequential(
        nn.Conv2d(embed_dim, out_dim, kernel_size=1, bias=False),
        LayerNorm2d(out_dim),
        nn.Conv2d(out_dim, out_dim, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_dim),
    )
