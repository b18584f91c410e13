"""Image embeddings + prompt embeddings -> mask logits: SAM's two-way decoder with one mask token.

Where SAM has its IoU token stands a label token; the published weights have no IoU head and one
mask a prompt (spec section 4.2). Weights of one's own may have SAM's IoU token and head, and its
further masks for lone points (Kirillov et al. 2023, appendix A, "Making the model
ambiguity-aware").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ovsam_cli.model.clip2sam import RegionHead
from ovsam_cli.model.layers import LayerNorm2d, Mlp
from ovsam_cli.model.prompt_encoder import PromptEmbeddings
from ovsam_cli.model.two_way import TwoWayTransformer
from ovsam_cli.model.upscaling import draw_masks

IOU_HIDDEN_DIM = 256  # SAM's, whatever the embedding's size


@dataclass(frozen=True, slots=True)
class DecodedMasks:
    """What a mask decoder says of B prompts.

    Attributes:
        mask_logits: (B, M, 4h, 4w) float, padded model frame; foreground above 0.
        iou_predictions: (B, M) float, the model's own estimate of each mask's IoU with the object
            (about 0 to 1, not clipped); None for a model without the head, never zeros.
    """

    mask_logits: Tensor
    iou_predictions: Tensor | None

    def __post_init__(self) -> None:
        found = None if self.iou_predictions is None else self.iou_predictions.shape
        if found is not None and found != self.mask_logits.shape[:2]:
            masks = tuple(self.mask_logits.shape)
            raise ValueError(f"iou_predictions {tuple(found)} for mask_logits {masks}")

    def take(self, rows: NDArray[np.int64] | slice) -> DecodedMasks:
        """The masks of the prompts at `rows`, in that order."""
        ious = self.iou_predictions
        return DecodedMasks(self.mask_logits[rows], None if ious is None else ious[rows])

    def split(self, num_prompts: int) -> Iterator[DecodedMasks]:
        """Consecutive parts of at most `num_prompts` prompts."""
        for start in range(0, len(self.mask_logits), num_prompts):
            yield self.take(slice(start, start + num_prompts))

    def sample(self, points: Tensor) -> Tensor:
        """Bilinear values at (B, N, 2) points in [0, 1], x first: (B, M, N)."""
        grid = points[:, :, None] * 2 - 1  # (B, N, 1, 2)
        logits = self.mask_logits
        return F.grid_sample(logits, grid.to(logits.dtype), align_corners=False)[..., 0]

    def float(self) -> DecodedMasks:
        """In float32."""
        ious = self.iou_predictions
        return DecodedMasks(self.mask_logits.float(), None if ious is None else ious.float())

    @staticmethod
    def concatenate(parts: Sequence[DecodedMasks]) -> DecodedMasks:
        """Join prompts of the same model; at least one part."""
        ious = [part.iou_predictions for part in parts if part.iou_predictions is not None]
        return DecodedMasks(
            torch.cat([part.mask_logits for part in parts]), torch.cat(ious) if ious else None
        )


class MaskPredictor(nn.Module):
    """SAM's mask decoder, with or without its IoU parts and its masks for lone points.

    Args:
        embed_dim: D.
        transformer: the two-way transformer, built.
        iou_head: whether to predict the masks' IoU.
        num_point_masks: masks a lone point can choose from, beside the single one of every prompt;
            more than 0 needs `iou_head`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        transformer: TwoWayTransformer,
        iou_head: bool = False,
        num_point_masks: int = 0,
    ) -> None:
        super().__init__()
        if num_point_masks and not iou_head:
            raise ValueError(f"num_point_masks ({num_point_masks}) needs iou_head to choose one")
        num_masks = 1 + num_point_masks
        self.transformer = transformer
        self.mask_tokens = nn.Embedding(num_masks, embed_dim)
        # Holds the weights under their official names; `draw_masks` runs them.
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(embed_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 4, embed_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=embed_dim // 8, num_layers=3)
            for _ in range(num_masks)
        )
        self.iou_token: nn.Embedding | None = None
        self.iou_prediction_head: Mlp | None = None
        if iou_head:
            self.iou_token = nn.Embedding(1, embed_dim)
            self.iou_prediction_head = Mlp(
                in_dim=embed_dim, hidden_dim=IOU_HIDDEN_DIM, out_dim=num_masks, num_layers=3
            )

    def output_tokens(self) -> Tensor:
        """(N, D) the tokens that are read in the end: the IoU token if there is one, the masks'."""
        own = self.mask_tokens.weight
        return own if self.iou_token is None else torch.cat([self.iou_token.weight, own])

    def forward(
        self,
        source: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        token_mask: Tensor | None,
        is_lone_point: Tensor | None = None,
        image_index: Tensor | None = None,
    ) -> DecodedMasks:
        """Predict the masks of B prompts.

        Args:
            source: (B, D, h, w) each prompt's image plus dense prompt embedding; with
                `image_index` (I, D, h, w), the same for all prompts of an image.
            image_pe: (1, D, h, w).
            tokens: (B, T, D): a label token, the output tokens, the prompt's own.
            token_mask: (B, T) bool or None.
            is_lone_point: (B,) bool, to have one mask a prompt: of a lone point that of highest
                predicted IoU among its own, else the single one. None for all masks.
            image_index: (B,) int64, which source each prompt reads; None where it has its own.

        Returns:
            M = 1 mask, or all M = 1 + num_point_masks, the single one first.
        """
        tokens, keys = self.transformer(tokens, source, image_pe, token_mask, image_index)
        weights, iou_predictions = self._read(tokens)
        if is_lone_point is not None and weights.shape[1] > 1:
            assert iou_predictions is not None  # several masks come with the head only
            # Chosen before the masks are computed: only one of them is needed.
            best = iou_predictions[:, 1:].argmax(dim=1) + 1
            chosen = torch.where(is_lone_point, best, 0)[:, None]  # (B, 1)
            iou_predictions = iou_predictions.gather(1, chosen)
            weights = weights.gather(1, chosen[..., None].expand(-1, -1, weights.shape[2]))
        height, width = source.shape[-2:]
        mask_logits = draw_masks(self.output_upscaling, keys, weights, (height, width))
        return DecodedMasks(mask_logits, iou_predictions)

    def _read(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) tokens -> (B, M, C) weights of the upscaled keys, (B, M) predicted IoU."""
        first = 1 if self.iou_prediction_head is None else 2
        weights = torch.stack(
            [mlp(tokens[:, first + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)],
            dim=1,
        )
        if self.iou_prediction_head is None:
            return weights, None
        return weights, self.iou_prediction_head(tokens[:, 1])


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
    ) -> DecodedMasks:
        """Decode B prompts of I images to one mask each.

        Args:
            image_embeddings: (I, D, h, w).
            image_pe: (1, D, h, w).
            prompt_embeddings: of B prompts.
            fine_features: not read by this decoder.

        Returns:
            M = 1; of several masks of a lone point that of highest predicted IoU.
        """
        is_lone_point = prompt_embeddings.prompts.is_lone_point
        return self._decode(image_embeddings, image_pe, prompt_embeddings, is_lone_point)

    def decode_field(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> DecodedMasks:
        """All masks the decoder has, to be asked at any point; arguments as of `forward`.

        Returns:
            M = 1 + num_point_masks: column 0 for boxes and several points, the others for lone
            points.
        """
        return self._decode(image_embeddings, image_pe, prompt_embeddings, None)

    def _decode(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        is_lone_point: Tensor | None,
    ) -> DecodedMasks:
        """Put the tokens together."""
        sparse = prompt_embeddings.sparse_prompt_embeddings
        index = prompt_embeddings.prompts.image_index
        own = torch.cat([self.label_token.weight, self.mask_decoder.output_tokens()])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)  # (B, own + T, D)
        token_mask = prompt_embeddings.token_mask
        if token_mask is not None:
            token_mask = F.pad(token_mask, (len(own), 0), value=True)
        dense = prompt_embeddings.dense_prompt_embeddings
        shared_index = None
        if dense.shape[-2:] == (1, 1):  # no mask prompts: all prompts of an image read the same
            source, shared_index = image_embeddings + dense, index
        else:
            source = image_embeddings[index] + dense
        decoded: DecodedMasks = self.mask_decoder(
            source, image_pe, tokens, token_mask, is_lone_point, shared_index
        )
        return decoded
