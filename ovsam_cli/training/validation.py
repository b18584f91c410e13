"""Scores of the weights in training on real annotated images, with the trunk's maps kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.evaluation.datasets import InstanceDataset, InstanceImage
from ovsam_cli.evaluation.metrics import compute_ious, summarize_masks
from ovsam_cli.evaluation.protocol import EncodeImage, PromptKind, answer_images
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import ImageGeometry

KINDS: tuple[PromptKind, ...] = ("box", "center")


class KeptMaps:
    """Trunk maps of validation images in half precision, so that each is encoded once.

    Args:
        model: its trunk and pixel statistics are used.
        folder: where maps are kept between runs.
    """

    def __init__(self, model: OVSAM, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def encode_image(self, image: InstanceImage) -> tuple[ImageFeatures, ImageGeometry]:
        """Features of one image with the model's present neck."""
        maps, geometry = self._trunk_maps(image)
        fine_neck = self.model.fine_neck
        features = ImageFeatures(
            image_embeddings=self.model.neck(maps),
            fpn_features=self.model.fpn_neck(maps),
            clip_features=maps[-1],
            input_hw=(geometry.input_hw,),
            fine_features=None if fine_neck is None else fine_neck(maps),
        )
        return features, geometry

    def _trunk_maps(self, image: InstanceImage) -> tuple[tuple[Tensor, ...], ImageGeometry]:
        config = self.model.config
        height, width = image.original_hw
        scale = config.model_size / max(height, width)
        input_hw = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        geometry = ImageGeometry(image.original_hw, input_hw, config.model_size)
        # The whole path, so that equal names in different folders are different images.
        key = hashlib.sha256(os.fsencode(image.path.absolute())).hexdigest()[:16]
        path = self.folder / f"{key}.pt"
        if not path.exists():
            self._write_maps(image, path)
        kept = torch.load(path, weights_only=True)
        return tuple(level.float() for level in kept), geometry

    def _write_maps(self, image: InstanceImage, path: Path) -> None:
        config = self.model.config
        pixels, _ = preprocess(
            read_image(image.path).rgb,
            model_size=config.model_size,
            mean=config.pixel_mean,
            std=config.pixel_std,
        )
        maps = self.model.backbone(torch.from_numpy(pixels)[None])
        self.folder.mkdir(parents=True, exist_ok=True)
        with write_whole_file(path) as file:
            torch.save([level.half().contiguous() for level in maps], file)


def build_validation(
    model: OVSAM,
    load_parts: Callable[[Mapping[str, Tensor]], None],
    datasets: Mapping[str, InstanceDataset],
    folder: Path,
    *,
    max_images: int,
) -> Callable[[Mapping[str, Tensor]], Mapping[str, float]]:
    """The loop's validation: box and centre prompts on every data set.

    Args:
        model: a second model, used for nothing else.
        load_parts: puts averaged weights into it.
        datasets: by name; the first one's mean of box and centre IoU is the score.
        folder: where trunk maps are kept.
        max_images: of each data set, the first ones.
    """
    kept = KeptMaps(model.eval(), folder)

    def validate(average: Mapping[str, Tensor]) -> Mapping[str, float]:
        load_parts(average)
        scores: dict[str, float] = {}
        for name, dataset in datasets.items():
            for kind in KINDS:
                images = dataset.images[:max_images]
                found = score_masks(model, kept.encode_image, images, kind)
                scores |= {f"{name} {kind} {part}": value for part, value in found.items()}
        first = next(iter(datasets))
        scores["score"] = sum(scores[f"{first} {kind} all"] for kind in KINDS) / len(KINDS)
        return scores

    return validate


def score_masks(
    model: OVSAM, encode_image: EncodeImage, images: Sequence[InstanceImage], kind: PromptKind
) -> dict[str, float]:
    """Mean IoU over all, small, medium and large instances."""
    answers = answer_images(model, encode_image, images, kind)
    truth = [one for image in images for one in image.instances]
    ious = compute_ious(answers.segmentations, [one.segmentation for one in truth])
    scores = summarize_masks(ious, np.asarray([one.area for one in truth], np.int64))
    return {
        "all": scores.miou,
        "small": scores.small,
        "medium": scores.medium,
        "large": scores.large,
    }
