"""Image embeddings + prompt embeddings -> mask logits: SAM's two-way decoder with one mask token.

Where SAM has its IoU token stands a label token; there is no IoU head and one mask a prompt
(spec section 4.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import RegionHead
from ovsam_cli.model.layers import FeedForward, LayerNorm2d, Mlp
from ovsam_cli.model.prompt_encoder import PromptEmbeddings


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

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        num_prompts, num_tokens, inner_dim = tokens.shape
        shape = (num_prompts, num_tokens, self.num_heads, inner_dim // self.num_heads)
        return tokens.reshape(shape).transpose(1, 2)


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
        """Update tokens (B, T, D) and image keys (B, h * w, D); `*_pe` have their shapes."""
        if self.is_first:
            # The first block's tokens are their own encoding: nothing is added or kept.
            tokens = self.self_attn(tokens, tokens, tokens, token_mask)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, token_mask)
        tokens = self.norm1(tokens)
        keys_with_pe = keys + key_pe
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, keys_with_pe, keys)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(
            keys_with_pe, tokens + token_pe, tokens, token_mask
        )
        return tokens, self.norm4(keys + attended)


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
        self, tokens: Tensor, source: Tensor, image_pe: Tensor, token_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks.

        Args:
            tokens: (B, T, D); also their own positional encoding.
            source: (B, D, h, w) image plus dense prompt embeddings.
            image_pe: (1, D, h, w).
            token_mask: (B, T) bool, False for filler, or None.

        Returns:
            Tokens (B, T, D) and image keys (B, h * w, D).
        """
        token_pe = tokens
        keys = source.flatten(2).transpose(1, 2)  # (B, h * w, D)
        key_pe = image_pe.flatten(2).transpose(1, 2)  # (1, h * w, D)
        for layer in self.layers:
            tokens, keys = layer(tokens, keys, token_pe, key_pe, token_mask)
        attended = self.final_attn_token_to_image(tokens + token_pe, keys + key_pe, keys)
        return self.norm_final_attn(tokens + attended), keys


class MaskPredictor(nn.Module):
    """SAM's mask decoder without IoU parts and with one mask token.

    Args:
        embed_dim: D.
        transformer: the two-way transformer, built.
        upscaling: (B, D, h, w) -> (B, upscaled_dim, 4h, 4w), built; None for SAM's own. When
            the model has fine features it is called with them as a second argument.
        upscaled_dim: channels of the upscaled map; None for D / 8.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        transformer: TwoWayTransformer,
        upscaling: nn.Module | None = None,
        upscaled_dim: int | None = None,
    ) -> None:
        super().__init__()
        upscaled_dim = embed_dim // 8 if upscaled_dim is None else upscaled_dim
        self.transformer = transformer
        self.mask_tokens = nn.Embedding(1, embed_dim)
        if upscaling is None:
            upscaling = nn.Sequential(
                nn.ConvTranspose2d(embed_dim, embed_dim // 4, kernel_size=2, stride=2),
                LayerNorm2d(embed_dim // 4),
                nn.GELU(),
                nn.ConvTranspose2d(embed_dim // 4, upscaled_dim, kernel_size=2, stride=2),
                nn.GELU(),
            )
        self.output_upscaling = upscaling
        self.output_hypernetworks_mlps = nn.ModuleList(
            [Mlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=upscaled_dim, num_layers=3)]
        )

    def forward(
        self,
        source: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        token_mask: Tensor | None,
        fine_features: Tensor | None = None,
    ) -> Tensor:
        """Predict one mask a prompt.

        Args:
            source: (B, D, h, w) each prompt's image plus dense prompt embedding.
            image_pe: (1, D, h, w).
            tokens: (B, T, D), the mask token second.
            token_mask: (B, T) bool or None.
            fine_features: (B, C, 4h, 4w) for an upscaling that reads them, or None.

        Returns:
            (B, 1, 4h, 4w) mask logits, padded model frame.
        """
        tokens, keys = self.transformer(tokens, source, image_pe, token_mask)
        maps = keys.transpose(1, 2).reshape(source.shape)  # (B, D, h, w)
        extra = () if fine_features is None else (fine_features,)
        upscaled = self.output_upscaling(maps, *extra)  # (B, C, 4h, 4w)
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])  # (B, C)
        return torch.einsum("bc,bchw->bhw", weights, upscaled)[:, None]


class MaskDecoder(nn.Module):
    """Everything the official files keep under `mask_decoder.`.

    Args:
        embed_dim: D.
        text_dim: size of a class embedding.
        predictor: the decoder proper, built.
        roi_conv: the recognition head's projection, built; kept here for the official keys.
    """

    def __init__(
        self, *, embed_dim: int, text_dim: int, predictor: MaskPredictor, roi_conv: RegionHead
    ) -> None:
        super().__init__()
        self.mask_decoder = predictor
        self.label_token = nn.Embedding(1, embed_dim)
        # Kept for the official keys: the published model multiplies its output by zero.
        self.label_mlp = Mlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=text_dim, num_layers=3)
        self.roi_conv = roi_conv

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> Tensor:
        """Decode B prompts of I images.

        Args:
            image_embeddings: (I, D, h, w).
            image_pe: (1, D, h, w).
            prompt_embeddings: of B prompts; `image_index` says whose.
            fine_features: (I, C, 4h, 4w) for an upscaling that reads them, or None.

        Returns:
            (B, 1, 4h, 4w) mask logits, padded model frame.
        """
        sparse, index = prompt_embeddings.sparse_prompt_embeddings, prompt_embeddings.image_index
        own = torch.cat([self.label_token.weight, self.mask_decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)  # (B, 2 + T, D)
        token_mask = prompt_embeddings.token_mask
        if token_mask is not None:
            token_mask = F.pad(token_mask, (2, 0), value=True)
        source = image_embeddings[index] + prompt_embeddings.dense_prompt_embeddings
        fine = None if fine_features is None else fine_features[index]
        mask_logits: Tensor = self.mask_decoder(source, image_pe, tokens, token_mask, fine)
        prior = prompt_embeddings.prior_mask_logits
        return mask_logits if prior is None else mask_logits + prior
