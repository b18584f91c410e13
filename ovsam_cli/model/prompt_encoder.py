"""Points, boxes and mask prompts -> PromptEmbeddings (SAM's prompt encoder, spec section 4.1).

Batches may mix prompts of any kind: what a prompt does not have is filler that `token_mask`
keeps out of attention, so a prompt's result does not depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ovsam_cli.model.layers import LayerNorm2d

# What all prompts consist of beside points that are no filler: a box or not; or they differ.
PromptLayout = Literal["boxed", "unboxed", "mixed"]


@dataclass(frozen=True, slots=True)
class ModelPrompts:
    """B prompts of all images of a batch, in input-frame pixels.

    Attributes:
        image_index: (B,) int64, which image each prompt belongs to.
        point_coords: (B, N, 2) float (x, y); N may be 0.
        point_labels: (B, N) int64: 1 foreground, 0 background, -1 filler.
        model_boxes_xyxy: (B, 4) float; rows of zeros where a prompt has no box.
        has_box: (B,) bool.
        prompt_mask_logits: (B, 1, R, R) float with R = model_size / 4, or None.
        has_mask: (B,) bool, or None for all (when there are mask logits).
        layout: what the tensors say of all prompts, so that nobody must wait for a device to
            learn it; `mixed` is always right.
    """

    image_index: Tensor
    point_coords: Tensor
    point_labels: Tensor
    model_boxes_xyxy: Tensor
    has_box: Tensor
    prompt_mask_logits: Tensor | None = None
    has_mask: Tensor | None = None
    layout: PromptLayout = "mixed"

    def take(self, rows: slice | Tensor) -> ModelPrompts:
        """Some of the prompts."""
        return self._apply(lambda values: values[rows])

    def to(self, device: torch.device) -> ModelPrompts:
        """The same on `device`."""
        return self._apply(lambda values: values.to(device, non_blocking=True))

    def _apply(self, change: Callable[[Tensor], Tensor]) -> ModelPrompts:
        mask_logits, has_mask = self.prompt_mask_logits, self.has_mask
        return ModelPrompts(
            image_index=change(self.image_index),
            point_coords=change(self.point_coords),
            point_labels=change(self.point_labels),
            model_boxes_xyxy=change(self.model_boxes_xyxy),
            has_box=change(self.has_box),
            prompt_mask_logits=None if mask_logits is None else change(mask_logits),
            has_mask=None if has_mask is None else change(has_mask),
            layout=self.layout,
        )

    @property
    def is_lone_point(self) -> Tensor:
        """(B,) bool: which prompts are one point without box and mask."""
        is_lone = ((self.point_labels >= 0).sum(dim=1) == 1) & ~self.has_box
        if self.prompt_mask_logits is None:
            return is_lone
        return torch.zeros_like(is_lone) if self.has_mask is None else is_lone & ~self.has_mask


@dataclass(frozen=True, slots=True)
class PromptEmbeddings:
    """What the mask decoder reads of B prompts.

    Attributes:
        prompts: what was embedded.
        sparse_prompt_embeddings: (B, T, D) tokens: points, padding point, box corners.
        token_mask: (B, T) bool, False for filler that must not take part in attention; None
            when every token is valid.
        dense_prompt_embeddings: (B, D, h, w) or broadcastable to it, such as (1, D, 1, 1).
    """

    prompts: ModelPrompts
    sparse_prompt_embeddings: Tensor
    token_mask: Tensor | None
    dense_prompt_embeddings: Tensor


class PositionEncoding(nn.Module):
    """Random Fourier features of positions in the model frame."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, embed_dim // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Encode (..., 2) positions (x, y), as fractions of the model size, to (..., D) float32."""
        matrix = self.positional_encoding_gaussian_matrix
        # In float32 whatever the model's dtype: half precision cannot tell pixels apart.
        angles = 2 * math.pi * ((2 * positions.float() - 1) @ matrix.float())
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """SAM's prompt encoder; state dict keys are the official ones under `pe.`.

    Args:
        embed_dim: D, size of a token.
        grid_hw: (h, w) of an image embedding.
        model_size: side of the square model frame in pixels.
        mask_dim: channels of the widest hidden layer for mask prompts.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        grid_hw: tuple[int, int],
        model_size: int,
        mask_dim: int = 16,
    ) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        self.model_size = model_size
        self.pe_layer = PositionEncoding(embed_dim)
        # background point, foreground point, box's top left, box's bottom right
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_dim // 4),
            nn.GELU(),
            nn.Conv2d(mask_dim // 4, mask_dim, kernel_size=2, stride=2),
            LayerNorm2d(mask_dim),
            nn.GELU(),
            nn.Conv2d(mask_dim, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def forward(self, prompts: ModelPrompts) -> PromptEmbeddings:
        """Embed B prompts of any kinds.

        As in SAM, a padding point follows the points of a prompt that has no box. A prompt
        with a mask alone has no tokens.
        """
        if prompts.layout == "mixed":
            tokens, token_mask = self._embed_mixed(prompts)
        else:
            tokens, token_mask = self._embed_alike(prompts), None
        return PromptEmbeddings(
            prompts=prompts,
            sparse_prompt_embeddings=tokens,
            token_mask=token_mask,
            dense_prompt_embeddings=self._embed_masks(prompts),
        )

    def image_pe(self) -> Tensor:
        """(1, D, h, w) positional encoding of the cell centers of an image embedding."""
        height, width = self.grid_hw
        device = self.not_a_point_embed.weight.device
        rows = (torch.arange(height, device=device) + 0.5) / height
        columns = (torch.arange(width, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(rows, columns, indexing="ij")
        encoding: Tensor = self.pe_layer(torch.stack([grid_x, grid_y], dim=-1))  # (h, w, D)
        return encoding.permute(2, 0, 1)[None].to(self.not_a_point_embed.weight.dtype)

    def _embed_alike(self, prompts: ModelPrompts) -> Tensor:
        """Tokens (B, T, D) of prompts of the same parts, all of them valid."""
        num_prompts, num_points = prompts.point_labels.shape
        tokens = [self.not_a_point_embed.weight.new_zeros(num_prompts, 0, self._embed_dim)]
        if num_points:
            tokens.append(self._embed_points(prompts.point_coords, prompts.point_labels))
        if prompts.layout == "boxed":
            tokens.append(self._embed_corners(prompts.model_boxes_xyxy))
        elif num_points:
            tokens.append(self.not_a_point_embed.weight.expand(num_prompts, 1, -1))
        return torch.cat(tokens, dim=1)

    def _embed_mixed(self, prompts: ModelPrompts) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) and which of them are valid (B, T), None for all; waits for those."""
        num_prompts, num_points = prompts.point_labels.shape
        has_point = prompts.point_labels >= 0  # (B, N)
        tokens = [self.not_a_point_embed.weight.new_zeros(num_prompts, 0, self._embed_dim)]
        valid = [has_point]
        if num_points:
            tokens.append(self._embed_points(prompts.point_coords, prompts.point_labels))
            needs_padding = has_point.any(dim=1, keepdim=True) & ~prompts.has_box[:, None]
            if bool(needs_padding.any()):
                tokens.append(self.not_a_point_embed.weight.expand(num_prompts, 1, -1))
                valid.append(needs_padding)
        if bool(prompts.has_box.any()):
            tokens.append(self._embed_corners(prompts.model_boxes_xyxy))
            valid.append(prompts.has_box[:, None].expand(-1, 2))
        token_mask = torch.cat(valid, dim=1)
        return torch.cat(tokens, dim=1), None if bool(token_mask.all()) else token_mask

    @property
    def _embed_dim(self) -> int:
        return self.not_a_point_embed.embedding_dim

    def _kinds(self, first: int, second: int) -> Tensor:
        """(2, D) embeddings of two kinds of point."""
        return torch.cat(
            [self.point_embeddings.get_parameter(f"{n}.weight") for n in (first, second)]
        )

    def _encode_positions(self, coords: Tensor) -> Tensor:
        """(..., 2) pixels -> (..., D)."""
        # Shift to pixel centers, as the SAM weights were trained.
        encoding: Tensor = self.pe_layer((coords.float() + 0.5) / self.model_size)
        return encoding.to(self.not_a_point_embed.weight.dtype)

    def _embed_points(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """(B, N, 2), (B, N) -> (B, N, D)."""
        kinds = self._kinds(0, 1)
        points = self._encode_positions(point_coords) + kinds[point_labels.clamp(min=0)]
        is_point = (point_labels >= 0)[..., None]
        return torch.where(is_point, points, self.not_a_point_embed.weight)

    def _embed_corners(self, model_boxes_xyxy: Tensor) -> Tensor:
        """(B, 4) -> (B, 2, D)."""
        kinds = self._kinds(2, 3)
        return self._encode_positions(model_boxes_xyxy.reshape(-1, 2, 2)) + kinds

    def _embed_masks(self, prompts: ModelPrompts) -> Tensor:
        """Dense embeddings: (B, D, h, w) with mask prompts, else (1, D, 1, 1)."""
        without_mask = self.no_mask_embed.weight[:, :, None, None]  # (1, D, 1, 1)
        if prompts.prompt_mask_logits is None:
            return without_mask
        embedded: Tensor = self.mask_downscaling(prompts.prompt_mask_logits)  # (B, D, h, w)
        if prompts.has_mask is None:
            return embedded
        return torch.where(prompts.has_mask[:, None, None, None], embedded, without_mask)
