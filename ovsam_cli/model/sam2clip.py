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

    def forward(self, qkv: Tensor) -> Tensor:
        """Attend within each grid.

        Args:
            qkv: (B, L, L, 3 * C) what the layer `qkv` makes of the tokens; the caller runs it and
                `proj`, because windows have padding for which neither need be computed.

        Returns:
            (B, L, L, C), before `proj`.
        """
        batch, side = qkv.shape[:2]
        qkv = qkv.reshape(batch, side * side, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L * L, C / heads)
        if torch.compiler.is_compiling() and q.is_cuda:
            heads = self.attend_with_terms(q, k, v, side)
        else:
            heads = self.attend_with_bias(q, k, v, side)
        return heads.transpose(1, 2).reshape(batch, side, side, -1)

    def attend_with_bias(self, q: Tensor, k: Tensor, v: Tensor, side: int) -> Tensor:
        """Attention with the position bias as a matrix, some rows of the grid at a time.

        Args:
            q, k, v: (B, heads, L * L, C / heads).
            side: L.

        Returns:
            (B, heads, L * L, C / heads).
        """
        batch = len(q)
        rows_a_chunk = max(1, MAX_BIAS_ELEMENTS // (batch * self.num_heads * side**3))
        chunks = [
            F.scaled_dot_product_attention(part, k, v, attn_mask=self._bias(part, first, side))
            for first, part in self._iter_row_chunks(q, side, rows_a_chunk)
        ]
        return torch.cat(chunks, dim=2)

    def attend_with_terms(self, q: Tensor, k: Tensor, v: Tensor, side: int) -> Tensor:
        """The same with both terms of the bias added to each logit, and no matrix of them.

        Meant to be compiled: run plainly it is slow, and holds all logits.
        """
        from torch.nn.attention.flex_attention import flex_attention

        by_row, by_column = self._position_terms(q, 0, side)  # (B, heads, L * L, L) each

        def add_terms(
            logit: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor
        ) -> Tensor:
            row_term = by_row[batch, head, query, key // side]
            return logit + row_term + by_column[batch, head, query, key % side]

        output = flex_attention(q, k, v, score_mod=add_terms)
        assert isinstance(output, Tensor)
        return output

    @staticmethod
    def _iter_row_chunks(q: Tensor, side: int, num_rows: int) -> list[tuple[int, Tensor]]:
        """(first row, its and the next rows' queries) for chunks of `num_rows` grid rows."""
        step = num_rows * side
        starts = range(0, q.shape[2], step)
        return [(start // side, q[:, :, start : start + step]) for start in starts]

    def _bias(self, q: Tensor, first_row: int, side: int) -> Tensor:
        """(B, heads, rows * L, L * L) position bias of the queries of some grid rows."""
        by_row, by_column = self._position_terms(q, first_row, side)
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(3)

    def _position_terms(self, q: Tensor, first_row: int, side: int) -> tuple[Tensor, Tensor]:
        """What a key's row and its column add to the logits of the queries of some grid rows.

        The queries are unscaled here, unlike in the attention itself.

        Returns:
            (B, heads, rows * L, L) by the key's row, and the same by its column.
        """
        batch, heads, count, head_dim = q.shape
        cells = torch.arange(side, device=q.device)
        offsets = cells[:, None] - cells[None, :] + side - 1  # (L, L): query row, key row
        num_rows = count // side
        by_row = self.rel_pos_h[offsets[first_row : first_row + num_rows]]
        by_column = self.rel_pos_w[offsets]
        grid = q.reshape(batch, heads, num_rows, side, head_dim)
        return (
            torch.einsum("bnywd,ykd->bnywk", grid, by_row).flatten(2, 3),
            torch.einsum("bnywd,wkd->bnywk", grid, by_column).flatten(2, 3),
        )


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
        qkv = self.attn.qkv(self.norm1(grid))
        if self.window_size:
            # What the layer makes of padding, which is zero, is its bias.
            windows = split_windows(qkv, self.window_size, self.attn.qkv.bias)
            attended = join_windows(self.attn(windows), self.window_size, grid)
        else:
            attended = self.attn(qkv)
        grid = grid + self.attn.proj(attended)
        output: Tensor = grid + self.mlp(self.norm2(grid))
        return output


def split_windows(grid: Tensor, window_size: int, filler: Tensor) -> Tensor:
    """(I, h, w, C) -> (I * windows, window_size, window_size, C), padded right and bottom.

    Padding, of (C,) values, takes part in attention unmasked, as the weights were trained.
    """
    images, height, width, embed_dim = grid.shape
    grid = F.pad(grid, (0, 0, 0, -width % window_size, 0, -height % window_size))
    grid[:, height:], grid[:, :height, width:] = filler, filler
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
