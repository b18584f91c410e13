"""What stays the same for all images of a run, and the network's stages on tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.planner import PixelFormat
from ovsam_cli.labelling.postprocess import PostprocessOptions
from ovsam_cli.labelling.work_sizes import WorkSizes
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import ImageGeometry
from ovsam_cli.vocabulary import Vocabulary

# Encoders gain nothing above 8 images; a chunk of 256 prompts takes about 4 GB.
CUDA_IMAGES, CUDA_PROMPTS = 8, 256
CPU_PROMPTS = 16  # more are not faster there, and take memory: 4 MB each with the published sizes


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
        compiles_masks: whether masks are encoded by Numba, which must be installed.
        temperature: by which class logits are divided for scores.
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
    compiles_masks: bool = False
    temperature: float = 1.0

    @property
    def names(self) -> dict[int, str]:
        """Name of each category id, the unknown one included."""
        found = {category.id: category.name for category in self.vocabulary.categories}
        if self.unknown_category_id is not None and self.options.unknown_name is not None:
            found[self.unknown_category_id] = self.options.unknown_name
        return found

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
    def encodes_on_device(self) -> bool:
        """Whether masks of large images are encoded on the device."""
        return self.device.type == "cuda" and not self.compiles_masks

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
            is_compiled=self.compiles_masks,
            temperature=self.temperature,
        )

    def work_sizes(self, on_message: Callable[[str], None] = lambda text: None) -> WorkSizes:
        """Images and prompts a step, from the options or as the device likes it."""
        is_cuda = self.device.type == "cuda"
        return WorkSizes(
            images=self.options.batch_size or (CUDA_IMAGES if is_cuda else 1),
            prompts=self.options.prompts_per_batch or (CUDA_PROMPTS if is_cuda else CPU_PROMPTS),
            fixed=is_cuda,
            on_message=on_message,
        )

    def autocast(self) -> AbstractContextManager[None]:
        """Half precision where it was chosen."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def encode(
    labeller: Labeller, pixels: Tensor, geometries: Sequence[ImageGeometry]
) -> ImageFeatures:
    """Run the image tower once for (I, 3, S, S) float pixels in the padded model frame."""
    with labeller.autocast():
        return labeller.model.encode_images(
            pixels, tuple(geometry.input_hw for geometry in geometries)
        )


def decode(labeller: Labeller, features: ImageFeatures, prompts: ModelPrompts) -> DecodedMasks:
    """One float32 mask a prompt, padded model frame."""
    with labeller.autocast():
        decoded = labeller.model.decode_masks(features, labeller.model.encode_prompts(prompts))
    return decoded.float()


def classify(
    labeller: Labeller, features: ImageFeatures, mask_logits: Tensor, prompts: ModelPrompts
) -> Tensor:
    """Name (B, 1, h, w) masks -> (B, K + 1) float32 class logits, background last."""
    with labeller.autocast():
        class_logits = labeller.model.classify(
            features, mask_logits, prompts, labeller.text_embeddings, labeller.fusion
        )
    return class_logits.float()
