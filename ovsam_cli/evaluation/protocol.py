"""Prompts from ground truth (spec section 8), and the masks and names a model answers with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.evaluation.centers import compute_center_point
from ovsam_cli.evaluation.datasets import Instance, InstanceImage
from ovsam_cli.masks import decode_mask, encode_mask_logits, mask_boxes
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import FloatArray, ImageGeometry, Rle

PromptKind = Literal["box", "center"]
EncodeImage = Callable[[InstanceImage], tuple[ImageFeatures, ImageGeometry]]
PROMPTS_PER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model said to the ground truth of some images, instance by instance.

    Attributes:
        segmentations: (B,) predicted masks, original frame.
        ranks: (B,) int64 how many categories scored above the true one; -1 without names.
    """

    segmentations: tuple[Rle, ...]
    ranks: np.ndarray


def answer_images(
    model: OVSAM,
    encode_image: EncodeImage,
    images: Sequence[InstanceImage],
    kind: PromptKind,
    *,
    naming: Naming | None = None,
) -> Answers:
    """Prompt every instance with its own ground truth, and collect masks and names.

    Args:
        model: in evaluation mode.
        encode_image: an image's features and frames; a place for a cache.
        images: with instances.
        kind: `box`, the tight box of the mask; `center`, the point deepest inside it.
        naming: how to name; None for masks alone.
    """
    segmentations: list[Rle] = []
    ranks = []
    with torch.inference_mode():
        for image in images:
            features, geometry = encode_image(image)
            device = features.image_embeddings.device
            for start in range(0, len(image.instances), PROMPTS_PER_BATCH):
                chunk = image.instances[start : start + PROMPTS_PER_BATCH]
                prompts = build_prompts(chunk, geometry, kind).to(device)
                decoded = model.decode_masks(features, model.encode_prompts(prompts))
                mask_logits = decoded.mask_logits
                array = mask_logits[:, 0].float().cpu().numpy()
                segmentations += encode_mask_logits(array, geometry).segmentations
                ranks.append(_rank(model, features, mask_logits, prompts, chunk, naming))
    return Answers(tuple(segmentations), np.concatenate([np.empty(0, np.int64), *ranks]))


@dataclass(frozen=True, slots=True)
class Naming:
    """Which names compete: (K, S, D) embeddings, the row of each category id, and the fusion."""

    text_embeddings: Tensor
    row_of_category: dict[int, int]
    fusion: Fusion


def build_prompts(
    instances: Sequence[Instance], geometry: ImageGeometry, kind: PromptKind
) -> ModelPrompts:
    """Ground-truth prompts of one image, input frame.

    The reference looks for the centre in the mask resized to the input frame; here it is found
    in the original mask and scaled, half a pixel apart at most.
    """
    count = len(instances)
    boxes = np.zeros((count, 4), np.float32)
    points = np.zeros((count, 0, 2), np.float32)
    if kind == "box":
        boxes = geometry.to_input_frame(mask_boxes([one.segmentation for one in instances]))
    else:
        centers = [compute_center_point(decode_mask(one.segmentation)) for one in instances]
        original: FloatArray = np.asarray(centers, np.float32).reshape(count, 1, 2)
        points = geometry.to_input_frame(original + 0.5) - np.float32(0.5)
    return ModelPrompts(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=torch.from_numpy(points),
        point_labels=torch.ones(points.shape[:2], dtype=torch.int64),
        model_boxes_xyxy=torch.from_numpy(boxes),
        has_box=torch.full((count,), kind == "box"),
    )


def _rank(
    model: OVSAM,
    features: ImageFeatures,
    mask_logits: Tensor,
    prompts: ModelPrompts,
    instances: Sequence[Instance],
    naming: Naming | None,
) -> np.ndarray:
    """(B,) int64: how many names beat the true one."""
    if naming is None:
        return np.full(len(instances), -1, np.int64)
    logits = model.classify(features, mask_logits, prompts, naming.text_embeddings, naming.fusion)[
        :, :-1
    ]
    rows = torch.tensor(
        [naming.row_of_category[one.category_id] for one in instances], device=logits.device
    )
    own = logits.gather(1, rows[:, None])
    ranks: np.ndarray = (logits > own).sum(dim=1).cpu().numpy()
    return ranks
