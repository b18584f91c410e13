"""Attention of the mask decoder: among tokens, and both ways between tokens and image cells.

A prompt has a few tokens and thousands of image cells. Between the two the few rows are multiplied
by the projection matrices instead of projecting every cell: q . (W k) = (W^T q) . k. The same
numbers for less than half of the operations, and no copy of the cells with their encoding. Prompts
of many tokens take the plain form, which is cheaper for them; so do prompts that share an image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose inner size may be smaller than the tokens'."""

    def __init__(self, *, embed_dim: int, inner_dim: int, num_heads: int) -> None:
        super().__init__()
        if inner_dim % num_heads:
            raise ValueError(f"inner_dim ({inner_dim}) must be divisible by {num_heads} heads")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dim, inner_dim)
        self.k_proj = nn.Linear(embed_dim, inner_dim)
        self.v_proj = nn.Linear(embed_dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, embed_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attend from (B, Tq, D) to (B, Tk, D).

        Args:
            q, k, v: queries, keys and values before projection.
            key_mask: (B, Tk) bool, False for keys to leave out; None for none.

        Returns:
            (B, Tq, D).
        """
        heads_q = self._split(self.q_proj(q))
        heads_k = self._split(self.k_proj(k))
        heads_v = self._split(self.v_proj(v))
        mask = None if key_mask is None else key_mask[:, None, None, :]  # (B, 1, 1, Tk)
        heads = F.scaled_dot_product_attention(heads_q, heads_k, heads_v, attn_mask=mask)
        output: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))  # (B, Tq, D)
        return output

    def tokens_to_image(self, tokens: Tensor, keys: Tensor, key_pe: Tensor) -> Tensor:
        """Attend from tokens (B, T, D) to image cells; the values are the cells without encoding.

        Args:
            tokens: queries before projection.
            keys: (B, M, D) image cells.
            key_pe: (M, D) their positional encoding.

        Returns:
            (B, T, D), as `forward(tokens, keys + key_pe, keys)`: the bias of the keys shifts a
            query's logits alike and drops out, that of the values is added at the end.
        """
        if not self.absorbs(tokens.shape[1]):
            return self.forward(tokens, keys + key_pe, keys)
        heads_q = self._query_rows(self.q_proj(tokens))
        rows = torch.einsum("bhtc,hcd->bhtd", heads_q, self._by_head(self.k_proj.weight))
        rows = rows.flatten(1, 2)  # (B, heads * T, D)
        logits = torch.baddbmm(rows @ key_pe.T, rows, keys.transpose(1, 2))  # (B, heads * T, M)
        seen = torch.bmm(logits.softmax(dim=-1), keys)  # (B, heads * T, D)
        seen = seen.view(len(tokens), self.num_heads, tokens.shape[1], keys.shape[-1])
        heads = torch.einsum("bhtd,hcd->bthc", seen, self._by_head(self.v_proj.weight))
        output: Tensor = self.out_proj(heads.flatten(2) + self.v_proj.bias)  # (B, T, D)
        return output

    def image_to_tokens(
        self, keys: Tensor, key_pe: Tensor, k: Tensor, v: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """Attend from image cells to tokens and add the result to the cells.

        Args:
            keys: (B, M, D) image cells.
            key_pe: (M, D) their positional encoding.
            k, v: (B, T, D) tokens' keys and values before projection.
            token_mask: (B, T) bool, False for tokens to leave out; None for none.

        Returns:
            (B, M, D), as `keys + forward(keys + key_pe, k, v, token_mask)`.
        """
        if not self.absorbs(k.shape[1]):
            return keys + self.forward(keys + key_pe, k, v, token_mask)
        heads_k = self._query_rows(self.k_proj(k))  # (B, heads, T, C / heads)
        rows = torch.einsum("bhtc,hcd->bhtd", heads_k, self._by_head(self.q_proj.weight))
        rows = rows.flatten(1, 2)  # (B, heads * T, D)
        # The cells' bias differs between the tokens that the softmax runs over: it stays.
        bias = heads_k @ self.q_proj.bias.view(self.num_heads, -1, 1)  # (B, heads, T, 1)
        from_pe = rows @ key_pe.T + bias.flatten(1, 2)  # (B, heads * T, M)
        logits = torch.baddbmm(from_pe, rows, keys.transpose(1, 2))
        logits = logits.view(*heads_k.shape[:3], keys.shape[1])  # (B, heads, T, M)
        return self._add_values(keys, logits, v, token_mask)

    def tokens_to_shared(self, tokens: Tensor, cells: Tensor, cell_pe: Tensor) -> Tensor:
        """`tokens_to_image` for one image that all prompts share: projected once.

        Args:
            tokens: (B, T, D) queries before projection.
            cells: (M, D).
            cell_pe: (M, D) their positional encoding.

        Returns:
            (B, T, D).
        """
        # All prompts' tokens are queries of one attention: nothing is repeated.
        heads = F.scaled_dot_product_attention(
            self._split(self.q_proj(tokens).flatten(0, 1)[None]),  # (1, heads, B * T, C / heads)
            self._split(self.k_proj(cells + cell_pe)[None]),
            self._split(self.v_proj(cells)[None]),
        )
        output: Tensor = self.out_proj(heads[0].transpose(0, 1).flatten(1))  # (B * T, D)
        return output.view_as(tokens)

    def shared_to_tokens(
        self, cells: Tensor, cell_pe: Tensor, k: Tensor, v: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """`image_to_tokens` for one image that all prompts share: projected once.

        Args:
            cells: (M, D).
            cell_pe: (M, D) their positional encoding.
            k, v: (B, T, D) tokens' keys and values before projection.
            token_mask: (B, T) bool, False for tokens to leave out; None for none.

        Returns:
            (B, M, D) each prompt's own cells.
        """
        num_prompts, num_tokens, _ = k.shape
        heads_q = self._split(self.q_proj(cells + cell_pe)[None])[0]  # (heads, M, C / heads)
        heads_k = self._query_rows(self.k_proj(k).flatten(0, 1)[None])[0]  # (heads, B * T, .)
        logits = heads_k @ heads_q.transpose(1, 2)  # (heads, B * T, M)
        logits = logits.view(self.num_heads, num_prompts, num_tokens, len(cells))
        keys = cells.expand(num_prompts, -1, -1)
        return self._add_values(keys, logits.transpose(0, 1), v, token_mask)

    def absorbs(self, num_tokens: int) -> bool:
        """Whether T rows through the projections cost less than projecting the image's cells.

        A cell costs, in multiplications: absorbed, its product with every head's row, its
        encoding's, and the weighted sum; plain, two projections and both small products.
        """
        inner_dim, embed_dim = self.k_proj.weight.shape
        absorbed = 3 * self.num_heads * num_tokens * embed_dim
        return absorbed < 2 * inner_dim * (embed_dim + num_tokens)

    def _add_values(
        self, keys: Tensor, logits: Tensor, v: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """Weigh projected values by (B, heads, T, M) logits and add them to (B, M, D) keys."""
        if token_mask is not None:
            logits = logits.masked_fill(~token_mask[:, None, :, None], float("-inf"))
        # Over the last axis but one: four times faster on the CPU than rows of T numbers.
        weights = logits.softmax(dim=2).flatten(1, 2)  # (B, heads * T, M)
        out_weight = self.out_proj.weight.view(keys.shape[-1], self.num_heads, -1)
        values = torch.einsum("bhtc,dhc->bhtd", self._split(self.v_proj(v)), out_weight)
        # A head's weights sum to 1: a share of the bias in every value adds it once.
        values = values + self.out_proj.bias / self.num_heads
        return torch.baddbmm(keys, weights.transpose(1, 2), values.flatten(1, 2))  # (B, M, D)

    def _by_head(self, weight: Tensor) -> Tensor:
        """(C, D) projection -> (heads, C / heads, D)."""
        num_channels, embed_dim = weight.shape
        return weight.view(self.num_heads, num_channels // self.num_heads, embed_dim)

    def _query_rows(self, projected: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads), scaled as attention logits are."""
        heads = self._split(projected)
        return heads * (1 / math.sqrt(heads.shape[-1]))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        num_prompts, num_tokens, inner_dim = tokens.shape
        shape = (num_prompts, num_tokens, self.num_heads, inner_dim // self.num_heads)
        return tokens.reshape(shape).transpose(1, 2)
