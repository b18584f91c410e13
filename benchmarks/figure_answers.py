"""What a model says of the objects of annotated images, asked with prompts from the true masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.answering import rank_names
from ovsam_cli.evaluation.datasets import (
    Instance,
    InstanceDataset,
    InstanceImage,
    check_image_files,
    read_instances,
)
from ovsam_cli.evaluation.metrics import compute_ious
from ovsam_cli.evaluation.naming_rules import RankRule
from ovsam_cli.evaluation.protocol import PROMPTS_PER_BATCH, PromptKind, build_prompts
from ovsam_cli.evaluation.splits import match_names
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.labelling.text_embeddings import build_text_embeddings
from ovsam_cli.masks import encode_mask_logits
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.model.hub import cache_folder
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.model.text_encoder import TextEncoder
from ovsam_cli.structures import BoolArray, FloatArray, ImageGeometry, IntArray, Rle
from ovsam_cli.vocabulary import (
    Category,
    Vocabulary,
    clean_names,
    read_vocabulary,
    resolve_trained_names,
)

KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
NEAR_COSINE = 0.8  # two names of one thing, or of things that look alike


@dataclass(frozen=True, slots=True)
class AnnotatedSet:
    """Images to ask about.

    Attributes:
        name: for tables.
        dataset: its images, with their objects.
        vocabulary: the K names that compete.
        row_of_category: row of the vocabulary of each category id; -1 for a name not in it.
    """

    name: str
    dataset: InstanceDataset
    vocabulary: Vocabulary
    row_of_category: dict[int, int]

    @property
    def instances(self) -> list[Instance]:
        """All objects, image by image."""
        return [one for image in self.dataset.images for one in image.instances]

    @property
    def image_index(self) -> IntArray:
        """(B,) int64 which image each object is of."""
        counts = [len(image.instances) for image in self.dataset.images]
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def true_rows(self) -> IntArray:
        """(B,) int64 row of each object's true name, or -1."""
        rows = [self.row_of_category[one.category_id] for one in self.instances]
        return np.asarray(rows, np.int64)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a set for a model.

    Attributes:
        text_embeddings: (K, S, D) float32 on the model's device.
        text_hash: of what they were made from.
        fusion: of both branches.
        is_near: (K,) bool whether a name is near an ImageNet class; None for models whose second
            branch does not come from ImageNet.
    """

    text_embeddings: Tensor
    text_hash: str
    fusion: Fusion
    is_near: BoolArray | None


@dataclass(frozen=True, slots=True)
class SetAnswers:
    """Answers to prompts of one kind, object by object.

    Attributes:
        segmentations: (B,) masks, original frame.
        ious: (B,) float32 with the true masks.
        predicted_ious: (B,) float32 the model's own estimate, or None without that head.
        ranks: (B,) int64 how many names beat the true one; -1 where it is not in the vocabulary.
        best_rows: (B,) int64 the name `ovsam label` would write.
    """

    segmentations: tuple[Rle, ...]
    ious: FloatArray
    predicted_ious: FloatArray | None
    ranks: IntArray
    best_rows: IntArray


def read_annotated_set(spec: str, *, max_images: int | None = None) -> AnnotatedSet:
    """Read `NAME=ANNOTATIONS:IMAGES[:VOCABULARY]`.

    Args:
        spec: the vocabulary is a bundled name or a file; without it the set's own names compete.
        max_images: take the first ones that have objects; None takes all.

    Raises:
        InputError: the spec, the annotations or an image is missing or wrong.
        VocabularyError: no such vocabulary.
    """
    name, _, places = spec.partition("=")
    parts = places.split(":")
    if not name or len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"--data {spec}: expected NAME=ANNOTATIONS:IMAGES[:VOCABULARY]")
    found = read_instances(Path(parts[0]), Path(parts[1]))
    images = [image for image in found.images if image.instances][:max_images]
    if not images:
        raise InputError(f"--data {spec}: no image has an object")
    dataset = replace(found, images=tuple(images))
    check_image_files(dataset)
    vocabulary = read_vocabulary(parts[2]) if len(parts) == 3 else own_names(name, dataset)
    rows = match_names(dataset.category_names, vocabulary)
    return AnnotatedSet(name, dataset, vocabulary, rows)


def own_names(name: str, dataset: InstanceDataset) -> Vocabulary:
    """A data set's categories as a vocabulary."""
    return Vocabulary(
        name,
        tuple(
            Category(number, category, clean_names(category))
            for number, category in dataset.category_names.items()
        ),
    )


def embed_names(loaded: LoadedModel, encoder: TextEncoder, vocabulary: Vocabulary) -> Names:
    """Embed a vocabulary as `ovsam label` does.

    Raises:
        VocabularyError: a name cannot be embedded.
    """
    config = loaded.config
    embeddings = build_text_embeddings(vocabulary, encoder, cache_dir=cache_folder())
    kinds = torch.from_numpy(vocabulary.kind_for(resolve_trained_names(config.trained_on)))
    device = loaded.model.pe.not_a_point_embed.weight.device
    is_near = None
    if config.text_tower == "minilm-l6":
        imagenet = read_vocabulary("imagenet1k")
        classes = build_text_embeddings(imagenet, encoder, cache_dir=cache_folder())
        is_near = find_near(embeddings.array, classes.array)
    return Names(
        text_embeddings=torch.from_numpy(embeddings.array).to(device),
        text_hash=embeddings.text_hash,
        fusion=Fusion("auto", kinds.to(device), alpha=config.alpha, beta=config.beta),
        is_near=is_near,
    )


def find_near(names: FloatArray, others: FloatArray) -> BoolArray:
    """(K,) bool: whether any synonym has a cosine above `NEAR_COSINE` with any of the others.

    Args:
        names: (K, S, D) float, L2-normalized.
        others: (N, T, D) float, L2-normalized.
    """
    cosines = names @ others.reshape(-1, others.shape[-1]).T  # (K, S, N * T)
    return np.asarray((cosines > NEAR_COSINE).any(axis=(1, 2)))


@torch.inference_mode()
def ask_model(model: OVSAM, asked: AnnotatedSet, names: Names) -> dict[PromptKind, SetAnswers]:
    """Prompt every object with the tight box of its mask, and with its centre point."""
    parts: dict[PromptKind, list[SetAnswers]] = {kind: [] for kind in KINDS}
    for image in asked.dataset.images:
        features, geometry = encode_image(model, image)
        for start in range(0, len(image.instances), PROMPTS_PER_BATCH):
            chunk = image.instances[start : start + PROMPTS_PER_BATCH]
            for kind in KINDS:
                parts[kind].append(_ask_chunk(model, features, geometry, chunk, kind, asked, names))
    return {kind: _join(found) for kind, found in parts.items()}


def encode_image(model: OVSAM, image: InstanceImage) -> tuple[ImageFeatures, ImageGeometry]:
    """Read an image and run the image tower."""
    config = model.config
    pixels, geometry = preprocess(
        read_image(image.path).rgb,
        model_size=config.model_size,
        mean=config.pixel_mean,
        std=config.pixel_std,
    )
    if geometry.original_hw != image.original_hw:
        raise InputError(
            f"{image.path}: {geometry.original_hw} pixels (height, width), but its annotations "
            f"are of {image.original_hw}; give the images that were annotated"
        )
    device = model.pe.not_a_point_embed.weight.device
    batch = torch.from_numpy(pixels)[None].to(device)
    return model.encode_images(batch, (geometry.input_hw,)), geometry


def _ask_chunk(
    model: OVSAM,
    features: ImageFeatures,
    geometry: ImageGeometry,
    instances: Sequence[Instance],
    kind: PromptKind,
    asked: AnnotatedSet,
    names: Names,
) -> SetAnswers:
    device = features.image_embeddings.device
    prompts = build_prompts(instances, geometry, kind).to(device)
    decoded = model.decode_masks(features, model.encode_prompts(prompts)).float()
    masks = encode_mask_logits(decoded.mask_logits[:, 0].cpu().numpy(), geometry).segmentations
    rows = torch.tensor([asked.row_of_category[one.category_id] for one in instances])
    logits = model.classify(
        features, decoded.mask_logits, prompts, names.text_embeddings, names.fusion
    ).cpu()
    everything = RankRule("", 0, np.ones(len(asked.vocabulary), np.bool_))
    predicted = decoded.iou_predictions
    return SetAnswers(
        segmentations=masks,
        ious=compute_ious(masks, [one.segmentation for one in instances]),
        predicted_ious=None if predicted is None else predicted[:, 0].cpu().numpy(),
        ranks=rank_names(logits, rows, everything),
        best_rows=logits[:, :-1].argmax(dim=-1).numpy(),
    )


def _join(parts: Sequence[SetAnswers]) -> SetAnswers:
    predicted = [part.predicted_ious for part in parts if part.predicted_ious is not None]
    return SetAnswers(
        segmentations=tuple(mask for part in parts for mask in part.segmentations),
        ious=np.concatenate([part.ious for part in parts]),
        predicted_ious=np.concatenate(predicted) if predicted else None,
        ranks=np.concatenate([part.ranks for part in parts]),
        best_rows=np.concatenate([part.best_rows for part in parts]),
    )
