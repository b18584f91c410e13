"""Scores of the weights in training on real annotated images, with the trunk's maps kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.evaluation.datasets import Instance, InstanceDataset, InstanceImage
from ovsam_cli.evaluation.metrics import compute_ious, summarize_masks
from ovsam_cli.evaluation.protocol import EncodeImage, PromptKind, answer_images
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import ImageGeometry, Rle
from ovsam_cli.training.batches import SkippedImage, Validated

KINDS: tuple[PromptKind, ...] = ("box", "center")


class ImageEncoder:
    """Validation images through a model whose weights change.

    Args:
        model: in evaluation mode.
        folder: where trunk maps are kept in half precision between validations and runs, so that
            each image is encoded once; each trunk has a folder of its own in it, so that maps
            of another one are never read. None when the trunk itself is trained.
    """

    def __init__(self, model: OVSAM, folder: Path | None) -> None:
        self.model = model
        self.folder = None if folder is None else folder / compute_trunk_fingerprint(model)[:16]

    def encode_image(self, image: InstanceImage) -> tuple[ImageFeatures, ImageGeometry]:
        """Features of one image with the model's present weights.

        Raises:
            ImageError: it cannot be read, or is not of the annotated size.
        """
        maps = self._trunk_maps(image)
        geometry = self._geometry(image)
        fine_neck = self.model.fine_neck
        features = ImageFeatures(
            image_embeddings=self.model.neck(maps),
            fpn_features=self.model.fpn_neck(maps),
            clip_features=maps[-1],
            input_hw=(geometry.input_hw,),
            fine_features=None if fine_neck is None else fine_neck(maps),
        )
        return features, geometry

    def _geometry(self, image: InstanceImage) -> ImageGeometry:
        size = self.model.config.model_size
        scale = size / max(image.original_hw)
        height, width = (max(1, int(side * scale + 0.5)) for side in image.original_hw)
        return ImageGeometry(image.original_hw, (height, width), size)

    def _trunk_maps(self, image: InstanceImage) -> tuple[Tensor, ...]:
        device = self.model.pe.not_a_point_embed.weight.device
        if self.folder is None:
            return self._compute_maps(image, device)
        # The whole path, so that equal names in different folders are different images.
        key = hashlib.sha256(os.fsencode(image.path.absolute())).hexdigest()[:16]
        path = self.folder / f"{key}.pt"
        if not path.exists():
            maps = self._compute_maps(image, device)
            self.folder.mkdir(parents=True, exist_ok=True)
            with write_whole_file(path) as file:
                torch.save([level.half().contiguous().cpu() for level in maps], file)
        kept = torch.load(path, weights_only=True)
        return tuple(level.to(device).float() for level in kept)

    def _compute_maps(self, image: InstanceImage, device: torch.device) -> tuple[Tensor, ...]:
        config = self.model.config
        rgb = read_image(image.path, apply_exif=False).rgb
        if rgb.shape[:2] != image.original_hw:
            raise ImageError(
                f"{image.path}: {rgb.shape[:2]} pixels, its annotations say {image.original_hw}",
                reason="wrong_size",
            )
        pixels, _ = preprocess(
            rgb,
            model_size=config.model_size,
            mean=config.pixel_mean,
            std=config.pixel_std,
        )
        return self.model.backbone(torch.from_numpy(pixels)[None].to(device))


def compute_trunk_fingerprint(model: OVSAM) -> str:
    """SHA-256 of all that decides the trunk's maps of an image, as hexadecimal digits.

    These are the trunk's weights, to the bit, and how images are resized and normalized for it.
    """
    config = model.config
    digest = hashlib.sha256()
    digest.update(repr((config.model_size, config.pixel_mean, config.pixel_std)).encode())
    for name, tensor in sorted(model.get_submodule("backbone").state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Flat first: a view as bytes needs a dimension, which counters do not have.
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def build_validation(
    model: OVSAM,
    parts: nn.Module,
    datasets: Mapping[str, InstanceDataset],
    folder: Path | None,
    *,
    max_images: int,
) -> Callable[[Mapping[str, Tensor]], Validated]:
    """The loop's validation: box and centre prompts on every data set.

    Args:
        model: the one in training; it gets its own weights back.
        parts: its trained parts.
        datasets: by name; the first one's mean of box and centre IoU is the score.
        folder: where trunk maps are kept; None when the trunk is trained.
        max_images: of each data set, the first ones.
    """
    encoder = ImageEncoder(model.eval(), folder)
    told: set[Path] = set()

    def validate(weights: Mapping[str, Tensor]) -> Validated:
        own = {key: value.clone() for key, value in parts.state_dict().items()}
        parts.load_state_dict(weights)
        try:
            found = _score_all(model, encoder.encode_image, datasets, max_images)
        finally:
            parts.load_state_dict(own)
        new = {one.path: one for one in found.skipped if one.path not in told}
        told.update(new)
        return replace(found, skipped=tuple(new.values()))

    return validate


def _score_all(
    model: OVSAM,
    encode_image: EncodeImage,
    datasets: Mapping[str, InstanceDataset],
    max_images: int,
) -> Validated:
    scores: dict[str, float] = {}
    skipped: list[SkippedImage] = []
    for name, dataset in datasets.items():
        for kind in KINDS:
            found = score_masks(model, encode_image, dataset.images[:max_images], kind)
            scores |= {f"{name} {kind} {part}": value for part, value in found.scores.items()}
            skipped += found.skipped
    first = next(iter(datasets))
    scores["score"] = sum(scores[f"{first} {kind} all"] for kind in KINDS) / len(KINDS)
    return Validated(scores, tuple(skipped))


def score_masks(
    model: OVSAM, encode_image: EncodeImage, images: Sequence[InstanceImage], kind: PromptKind
) -> Validated:
    """Mean IoU over all, small, medium and large instances of the images that can be read.

    Raises:
        InputError: none of them can.
    """
    found: list[Rle] = []
    truth: list[Instance] = []
    skipped: list[SkippedImage] = []
    for image in images:
        try:
            found += answer_images(model, encode_image, [image], kind).segmentations
        except ImageError as error:
            reason = str(error).removeprefix(f"{image.path}: ")
            skipped.append(SkippedImage(image.path, f"validation: {reason}"))
        else:
            truth += image.instances
    if skipped and len(skipped) == len(images):
        raise InputError(
            f"none of {len(images)} images to validate on can be read; the first is "
            f"{skipped[0].path}: {skipped[0].reason}"
        )
    ious = compute_ious(found, [one.segmentation for one in truth])
    scores = summarize_masks(ious, np.asarray([one.area for one in truth], np.int64))
    return Validated(
        {
            "all": scores.miou,
            "small": scores.small,
            "medium": scores.medium,
            "large": scores.large,
        },
        tuple(skipped),
    )
