"""SAM's two-way transformer: prompt tokens and image cells read one another (spec section 4.2)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.attention import Attention
from ovsam_cli.model.layers import FeedForward

# Prompts of one image from which projecting it for all of them costs less than working with each
# prompt's tokens: 0.81 GFLOP an image against 0.33 a prompt at the published sizes.
MIN_SHARING = 3


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, feed-forward, image to tokens."""

    def __init__(
        self, *, embed_dim: int, num_heads: int, mlp_dim: int, cross_dim: int, is_first: bool
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embed_dim=embed_dim, inner_dim=embed_dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn_token_to_image = Attention(
            embed_dim=embed_dim, inner_dim=cross_dim, num_heads=num_heads
        )
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = FeedForward(embed_dim, mlp_dim, F.relu)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.norm4 = nn.LayerNorm(embed_dim)
        self.cross_attn_image_to_token = Attention(
            embed_dim=embed_dim, inner_dim=cross_dim, num_heads=num_heads
        )
        self.is_first = is_first

    def forward(
        self,
        tokens: Tensor,
        keys: Tensor,
        token_pe: Tensor,
        key_pe: Tensor,
        token_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (B, T, D) and image keys (B, M, D), their encodings (B, T, D), (M, D)."""
        tokens = self._mix_tokens(tokens, token_pe, token_mask)
        to_image = self.cross_attn_token_to_image
        tokens = self._take_up(tokens, to_image.tokens_to_image(tokens + token_pe, keys, key_pe))
        keys = self.cross_attn_image_to_token.image_to_tokens(
            keys, key_pe, tokens + token_pe, tokens, token_mask
        )
        return tokens, self.norm4(keys)

    def read_shared(
        self,
        tokens: Tensor,
        cells: Tensor,
        token_pe: Tensor,
        cell_pe: Tensor,
        token_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """As `forward` for prompts of one image, (M, D) cells, which is projected once."""
        tokens = self._mix_tokens(tokens, token_pe, token_mask)
        to_image = self.cross_attn_token_to_image
        tokens = self._take_up(tokens, to_image.tokens_to_shared(tokens + token_pe, cells, cell_pe))
        keys = self.cross_attn_image_to_token.shared_to_tokens(
            cells, cell_pe, tokens + token_pe, tokens, token_mask
        )
        return tokens, self.norm4(keys)

    def _mix_tokens(self, tokens: Tensor, token_pe: Tensor, token_mask: Tensor | None) -> Tensor:
        """Self-attention of (B, T, D)."""
        if self.is_first:
            # The first block's tokens are their own encoding: nothing is added or kept.
            mixed = self.self_attn(tokens, tokens, tokens, token_mask)
        else:
            q = tokens + token_pe
            mixed = tokens + self.self_attn(q, q, tokens, token_mask)
        normed: Tensor = self.norm1(mixed)
        return normed

    def _take_up(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add what (B, T, D) tokens saw in the image, and the feed-forward layers."""
        tokens = self.norm2(tokens + attended)
        normed: Tensor = self.norm3(tokens + self.mlp(tokens))
        return normed


class TwoWayTransformer(nn.Module):
    """Lets prompt tokens and image cells read one another.

    Args:
        depth: number of two-way blocks.
        embed_dim: D.
        num_heads: heads of every attention.
        mlp_dim: hidden size of the feed-forward layers.
        cross_dim: inner size of the attention between tokens and image; None for D / 2.
    """

    def __init__(
        self,
        *,
        depth: int,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        cross_dim: int | None = None,
    ) -> None:
        super().__init__()
        cross_dim = embed_dim // 2 if cross_dim is None else cross_dim
        self.layers = nn.ModuleList(
            TwoWayBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_dim=mlp_dim,
                cross_dim=cross_dim,
                is_first=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(
            embed_dim=embed_dim, inner_dim=cross_dim, num_heads=num_heads
        )
        self.norm_final_attn = nn.LayerNorm(embed_dim)

    def forward(
        self,
        tokens: Tensor,
        source: Tensor,
        image_pe: Tensor,
        token_mask: Tensor | None,
        image_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks.

        Args:
            tokens: (B, T, D); also their own positional encoding.
            source: (B, D, h, w) image plus dense prompt embeddings; with `image_index`
                (I, D, h, w), the same for all prompts of an image.
            image_pe: (1, D, h, w).
            token_mask: (B, T) bool, False for filler, or None.
            image_index: (B,) int64, which source each prompt reads; None where it has its own.

        Returns:
            Tokens (B, T, D) and image keys (B, h * w, D).
        """
        token_pe = tokens
        keys = source.flatten(2).transpose(1, 2)  # (B or I, h * w, D)
        key_pe = image_pe[0].flatten(1).T  # (h * w, D)
        num_done = 0
        if image_index is not None and len(source) == 1 and len(tokens) >= MIN_SHARING:
            first = cast(TwoWayBlock, self.layers[0])
            tokens, keys = first.read_shared(tokens, keys[0], token_pe, key_pe, token_mask)
            num_done = 1
        elif image_index is not None:
            # Sharing among prompts of several images would copy the projections to each prompt,
            # which takes longer than not to make them.
            keys = keys[image_index]
        for layer in self.layers[num_done:]:
            tokens, keys = layer(tokens, keys, token_pe, key_pe, token_mask)
        last = self.final_attn_token_to_image
        attended = last.tokens_to_image(tokens + token_pe, keys, key_pe)
        return self.norm_final_attn(tokens + attended), keys
