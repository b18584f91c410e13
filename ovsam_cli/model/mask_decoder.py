"""Image embeddings + prompt embeddings -> mask logits: SAM's two-way decoder with one mask token.

Where SAM has its IoU token stands a label token; there is no IoU head and one mask a prompt
(spec section 4.2).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.model.attention import Attention
from ovsam_cli.model.clip2sam import RegionHead
from ovsam_cli.model.layers import FeedForward, LayerNorm2d, Mlp
from ovsam_cli.model.prompt_encoder import PromptEmbeddings


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
        if self.is_first:
            # The first block's tokens are their own encoding: nothing is added or kept.
            tokens = self.self_attn(tokens, tokens, tokens, token_mask)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, token_mask)
        tokens = self.norm1(tokens)
        attended = self.cross_attn_token_to_image.tokens_to_image(tokens + token_pe, keys, key_pe)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token.image_to_tokens(
            keys, key_pe, tokens + token_pe, tokens, token_mask
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
        key_pe = image_pe[0].flatten(1).T  # (h * w, D)
        for layer in self.layers:
            tokens, keys = layer(tokens, keys, token_pe, key_pe, token_mask)
        last = self.final_attn_token_to_image
        attended = last.tokens_to_image(tokens + token_pe, keys, key_pe)
        return self.norm_final_attn(tokens + attended), keys


class MaskPredictor(nn.Module):
    """SAM's mask decoder without IoU parts and with one mask token.

    Args:
        embed_dim: D.
        transformer: the two-way transformer, built.
    """

    def __init__(self, *, embed_dim: int, transformer: TwoWayTransformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.mask_tokens = nn.Embedding(1, embed_dim)
        # Holds the weights under their official names; `_upscale` runs them.
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(embed_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 4, embed_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [Mlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=embed_dim // 8, num_layers=3)]
        )

    def forward(
        self, source: Tensor, image_pe: Tensor, tokens: Tensor, token_mask: Tensor | None
    ) -> Tensor:
        """Predict one mask a prompt.

        Args:
            source: (B, D, h, w) each prompt's image plus dense prompt embedding.
            image_pe: (1, D, h, w).
            tokens: (B, T, D), the mask token second.
            token_mask: (B, T) bool or None.

        Returns:
            (B, 1, 4h, 4w) mask logits, padded model frame.
        """
        num_prompts, _, height, width = source.shape
        tokens, keys = self.transformer(tokens, source, image_pe, token_mask)
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1])  # (B, C)
        logits = torch.bmm(self._upscale(keys), weights[:, :, None])  # (B, h * w * 16, 1)
        # Each cell's pixels: first step's row and column, then the second step's.
        logits = logits.view(num_prompts, height, width, 2, 2, 2, 2)
        logits = logits.permute(0, 1, 3, 5, 2, 4, 6)  # rows together, columns together
        return logits.reshape(num_prompts, 1, 4 * height, 4 * width)

    def _upscale(self, keys: Tensor) -> Tensor:
        """Image keys (B, h * w, D) -> (B, h * w * 16, C): 4 x 4 pixels a cell, channels last."""
        first = cast(nn.ConvTranspose2d, self.output_upscaling[0])
        norm = cast(LayerNorm2d, self.output_upscaling[1])
        second = cast(nn.ConvTranspose2d, self.output_upscaling[3])
        pixels = F.gelu(norm.normalize_last(_double(keys, first)))
        return F.gelu(_double(pixels, second))


def _double(pixels: Tensor, conv: nn.ConvTranspose2d) -> Tensor:
    """A transposed convolution of kernel and stride 2 as one matrix product.

    Args:
        pixels: (B, M, D).
        conv: D -> C channels.

    Returns:
        (B, M * 4, C): each pixel's two by two, row by row.
    """
    matrix = conv.weight.permute(2, 3, 1, 0).reshape(-1, pixels.shape[-1])  # (4 * C, D)
    doubled = F.linear(pixels, matrix) + cast(Tensor, conv.bias).repeat(4)
    return doubled.view(len(pixels), 4 * pixels.shape[1], conv.out_channels)


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
            fine_features: not read by this decoder.

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
        mask_logits: Tensor = self.mask_decoder(source, image_pe, tokens, token_mask)
        prior = prompt_embeddings.prior_mask_logits
        return mask_logits if prior is None else mask_logits + prior
