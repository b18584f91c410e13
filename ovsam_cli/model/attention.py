"""Attention of the mask decoder: among tokens, and both ways between tokens and image cells.

A prompt has a few tokens and thousands of image cells. Between the two the few rows are multiplied
by the projection matrices instead of projecting every cell: q . (W k) = (W^T q) . k. The same
numbers for less than half of the operations, and no copy of the cells with their encoding.
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
        rows = torch.einsum(
            "bhtc,hcd->bhtd",
            self._query_rows(self.q_proj(tokens)),
            self._by_head(self.k_proj.weight),
        )
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
        """Attend from image cells to tokens.

        Args:
            keys: (B, M, D) image cells.
            key_pe: (M, D) their positional encoding.
            k, v: (B, T, D) tokens' keys and values before projection.
            token_mask: (B, T) bool, False for tokens to leave out; None for none.

        Returns:
            (B, M, D), as `forward(keys + key_pe, k, v, token_mask)`.
        """
        heads_k = self._query_rows(self.k_proj(k))  # (B, heads, T, C / heads)
        rows = torch.einsum("bhtc,hcd->bhtd", heads_k, self._by_head(self.q_proj.weight))
        rows = rows.flatten(1, 2)  # (B, heads * T, D)
        bias = heads_k @ self.q_proj.bias.view(self.num_heads, -1, 1)  # (B, heads, T, 1)
        from_pe = (rows @ key_pe.T + bias.flatten(1, 2)).transpose(1, 2)  # (B, M, heads * T)
        logits = torch.baddbmm(from_pe, keys, rows.transpose(1, 2))
        logits = logits.view(*keys.shape[:2], self.num_heads, k.shape[1])  # (B, M, heads, T)
        if token_mask is not None:
            logits = logits.masked_fill(~token_mask[:, None, None, :], float("-inf"))
        weights = logits.softmax(dim=-1).flatten(2)  # (B, M, heads * T)
        out_weight = self.out_proj.weight.view(keys.shape[-1], self.num_heads, -1)
        values = torch.einsum("bhtc,dhc->bhtd", self._split(self.v_proj(v)), out_weight)
        attended = torch.bmm(weights, values.flatten(1, 2))  # (B, M, D)
        return attended + self.out_proj.bias

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
