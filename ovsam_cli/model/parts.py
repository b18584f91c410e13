"""What OVSAM asks of its parts; the builders choose which classes stand there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.prompt_encoder import PromptEmbeddings


class ImageTrunk(Protocol):
    """What OVSAM asks of an image trunk (an nn.Module)."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(I, 3, S, S) -> four maps (I, C_l, h_l, w_l), finest first."""

    def embed_regions(
        self, clip_features: Tensor, boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Boxes (B, 4), input frame, on the last map -> (B, text_dim), not normalized."""


class RegionEmbedder(Protocol):
    """What OVSAM asks of a recognition head (an nn.Module)."""

    def embed_regions(
        self, fpn_features: Sequence[Tensor], boxes_xyxy: Tensor, image_index: Tensor
    ) -> Tensor:
        """Boxes (B, 4), input frame, on the FPN levels -> (B, text_dim), not normalized."""

    def requires_grad_(self, requires_grad: bool = True) -> object:
        """As of any nn.Module."""


class MaskField(Protocol):
    """The masks of B prompts, to be asked at any point; what training reads."""

    @property
    def iou_predictions(self) -> Tensor | None:
        """(B, M) predicted IoU, None for a model without the head."""

    def sample(self, points: Tensor) -> Tensor:
        """(B, N, 2) points in [0, 1], x first -> (B, M, N) mask logits."""


class PromptedDecoder(Protocol):
    """What OVSAM asks of a mask decoder (an nn.Module)."""

    @property
    def roi_conv(self) -> RegionEmbedder:
        """The recognition head, kept here because the official weights have it here."""

    def __call__(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> DecodedMasks:
        """Image embeddings (I, D, h, w) and B prompts -> one mask a prompt."""

    def decode_field(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        prompt_embeddings: PromptEmbeddings,
        fine_features: Tensor | None = None,
    ) -> MaskField:
        """The same, with every mask the decoder has, the single one first."""
