"""What stays the same for all images of a run, and the network's stages on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.planner import PixelFormat
from ovsam_cli.labelling.postprocess import PostprocessOptions
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.structures import FloatArray, ImageGeometry, Prompts
from ovsam_cli.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Labeller:
    """What stays the same for all images of a run.

    Attributes:
        model: on `device`, in evaluation mode.
        vocabulary: the K names to choose from.
        text_embeddings: (K, S, D) float32 on `device`.
        text_hash: of what they were made from.
        fusion: which recognition branches count.
        options: of the run.
        unknown_category_id: category of objects no name fits, or None.
        device, dtype: where and in which format the network computes.
    """

    model: OVSAM
    vocabulary: Vocabulary
    text_embeddings: Tensor
    text_hash: str
    fusion: Fusion
    options: LabelOptions
    unknown_category_id: int | None
    device: torch.device
    dtype: torch.dtype

    @property
    def pixel_format(self) -> PixelFormat:
        """How the model wants its images."""
        config = self.model.config
        return PixelFormat(config.model_size, config.pixel_mean, config.pixel_std)

    @property
    def predicted_iou_cut(self) -> float | None:
        """Lowest predicted IoU of a mask; None keeps all."""
        config = self.model.config
        return self.options.predicted_iou_cut(config.grid_min_iou if config.iou_head else None)

    @property
    def stability_cut(self) -> float:
        """Lowest stability of a mask."""
        return self.options.stability_cut(self.model.config.grid_min_stability)

    @property
    def postprocess_options(self) -> PostprocessOptions:
        """What is kept of the network's output."""
        return PostprocessOptions(
            min_score=self.options.min_score,
            min_stability=self.stability_cut,
            min_predicted_iou=self.predicted_iou_cut,
            stability_offset=self.model.config.stability_offset,
            min_region=self.options.min_region,
            top_k=self.options.top_k,
            unknown_category_id=self.unknown_category_id,
        )

    def autocast(self) -> AbstractContextManager[None]:
        """Half precision where it was chosen."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def encode(
    labeller: Labeller, pixels: FloatArray, geometries: Sequence[ImageGeometry]
) -> ImageFeatures:
    """Run the image tower once for (I, 3, S, S) pixels in the padded model frame."""
    with labeller.autocast():
        return labeller.model.encode_images(
            torch.from_numpy(pixels).to(labeller.device),
            tuple(geometry.input_hw for geometry in geometries),
        )


def decode(
    labeller: Labeller,
    features: ImageFeatures,
    prompts: Prompts,
    geometries: Sequence[ImageGeometry],
) -> DecodedMasks:
    """Prompts in the original frame -> one float32 mask each, padded model frame."""
    model_prompts = to_model_prompts(prompts, geometries, device=labeller.device)
    with labeller.autocast():
        decoded = labeller.model.decode_masks(
            features, labeller.model.encode_prompts(model_prompts)
        )
    return decoded.float()


def classify(
    labeller: Labeller,
    features: ImageFeatures,
    mask_logits: Tensor,
    prompts: Prompts,
    geometries: Sequence[ImageGeometry],
) -> Tensor:
    """Name (B, 1, h, w) masks -> (B, K + 1) float32 class logits, background last."""
    model_prompts = to_model_prompts(prompts, geometries, device=labeller.device)
    with labeller.autocast():
        class_logits = labeller.model.classify(
            features, mask_logits, model_prompts, labeller.text_embeddings, labeller.fusion
        )
    return class_logits.float()
