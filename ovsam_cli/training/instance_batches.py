"""Micro-batches of CLIP2SAM: augmented views with prompts, masks and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import FloatArray, IntArray
from ovsam_cli.training.augmentation import (
    AugmentationOptions,
    CutMasks,
    cut_image,
    cut_masks,
    jitter_colors,
    sample_window,
    to_pixels,
)
from ovsam_cli.training.batches import SkippedImage
from ovsam_cli.training.instance_sets import TrainingSet
from ovsam_cli.training.prompt_sampling import (
    DrawnPrompts,
    PromptRule,
    PublishedPrompts,
    to_model_prompts,
)
from ovsam_cli.training.region_sampling import (
    NamedRegions,
    RegionOptions,
    draw_regions,
    join_regions,
)

MAX_ATTEMPTS = 50  # images tried for one view


@dataclass(frozen=True, slots=True)
class InstanceBatch:
    """B prompts of I views with their true masks and labels.

    Attributes:
        pixels: (I, 3, S, S) float, normalized, padded.
        input_hw: (height, width) of each view.
        prompts: B prompts, padded model frame.
        masks: (U, S, S) bool, the objects of all views.
        mask_index: (B,) int64 rows of `masks`.
        labels: (B,) int64 rows of the text embeddings; K is background, -1 no class.
        boxes_xyxy: (B, 4) float true boxes, padded model frame.
        regions: boxes to name; None for the true boxes of the prompts.
        skipped: images that could not be read while making it.
    """

    pixels: Tensor
    input_hw: tuple[tuple[int, int], ...]
    prompts: ModelPrompts
    masks: Tensor
    mask_index: Tensor
    labels: Tensor
    boxes_xyxy: Tensor
    regions: NamedRegions | None = None
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.pixels)

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "masks", "mask_index", "labels", "boxes_xyxy")
        }
        prompts = self.prompts.to(device)
        regions = None if self.regions is None else self.regions.to(device)
        return replace(self, prompts=prompts, regions=regions, **moved)


@dataclass(frozen=True, slots=True)
class WeightedSet:
    """A training set, drawn `weight` times as often as one of weight 1."""

    images: TrainingSet
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How micro-batches are made.

    Attributes:
        pixel_mean, pixel_std: of the model.
        num_categories: K, rows of the text embeddings.
        images_per_batch: I.
        augmentation: of views.
        prompts: the rule they are drawn by.
        regions: boxes to name besides the prompts' own; None for those alone.
        seed: of everything random.
    """

    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    num_categories: int
    images_per_batch: int = 2
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    prompts: PromptRule = field(default_factory=PublishedPrompts)
    regions: RegionOptions | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    pixels: FloatArray  # (3, S, S)
    input_hw: tuple[int, int]
    objects: CutMasks
    labels: IntArray  # (n,) of the objects
    drawn: DrawnPrompts
    regions: tuple[FloatArray, IntArray] | None


class InstanceSource:
    """Micro-batches by number, each a function of (seed, number) alone.

    One data set is gone through in epochs, each in its own random order; of several the data set
    is drawn by weight, then one of its images. An image that cannot be read, or shows no object
    in its view, is replaced by another.

    Args:
        sets: what to draw from.
        options: of the batches.

    Raises:
        InputError: no image in any of the sets.
    """

    def __init__(self, sets: Sequence[WeightedSet], options: SourceOptions) -> None:
        self.sets = [one for one in sets if len(one.images) and one.weight > 0]
        if not self.sets:
            raise InputError("no image with objects to train on in any of the data sets")
        weights = np.asarray([one.weight for one in self.sets])
        self.probs = weights / weights.sum()
        self.options = options
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def __getitem__(self, index: int) -> InstanceBatch:
        """Micro-batch `index`.

        Raises:
            InputError: of many images none could be used.
        """
        rng = np.random.default_rng([self.options.seed, index])
        count = self.options.images_per_batch
        skipped: list[SkippedImage] = []
        views = [self._make_view(index * count + slot, rng, skipped) for slot in range(count)]
        return _join_views(views, tuple(skipped))

    def _make_view(
        self, position: int, rng: np.random.Generator, skipped: list[SkippedImage]
    ) -> _View:
        for attempt in range(MAX_ATTEMPTS):
            chosen = self.sets[int(rng.choice(len(self.sets), p=self.probs))].images
            number = self._choose(chosen, position if attempt == 0 else None, rng)
            try:
                view = self._try_view(chosen, number, rng)
            except ImageError as error:
                path, reason = chosen.path(number), str(error)
                skipped.append(SkippedImage(path, reason.removeprefix(f"{path}: ")))
                continue
            if view is not None:
                return view
        last = f"; the last that could not be read: {skipped[-1].reason}" if skipped else ""
        raise InputError(
            f"{MAX_ATTEMPTS} images in a row gave nothing to train on ({len(skipped)} could not "
            f"be read, the others show no object of {self.options.augmentation.min_area} "
            f"pixels){last}; check --data"
        )

    def _choose(self, images: TrainingSet, position: int | None, rng: np.random.Generator) -> int:
        if len(self.sets) > 1 or position is None:
            return int(rng.integers(len(images)))
        epoch, place = divmod(position, len(images))
        if epoch != self._epoch:
            order = np.random.default_rng([self.options.seed, 1, epoch])
            self._epoch, self._order = epoch, order.permutation(len(images))
        return int(self._order[place])

    def _try_view(self, images: TrainingSet, number: int, rng: np.random.Generator) -> _View | None:
        options, augmentation = self.options, self.options.augmentation
        image = images.read(number)
        window = sample_window(image.original_hw, augmentation, rng)
        objects = cut_masks(image.segmentations, window, augmentation)
        if objects is None:
            return None
        rgb = cut_image(image.path, window, is_exact=augmentation.is_exact)
        if augmentation.has_camera_faults:
            rgb = jitter_colors(rgb, rng)
        labels = image.labels[objects.rows]
        regions = None
        if options.regions is not None:
            regions = draw_regions(objects, labels, options.regions, options.num_categories, rng)
        return _View(
            pixels=to_pixels(rgb, augmentation.model_size, options.pixel_mean, options.pixel_std),
            input_hw=window.input_hw,
            objects=objects,
            labels=labels,
            drawn=options.prompts.draw(objects, rng),
            regions=regions,
        )


def _join_views(views: Sequence[_View], skipped: tuple[SkippedImage, ...]) -> InstanceBatch:
    offsets = np.cumsum([0, *(len(view.labels) for view in views)])
    mask_index = np.concatenate(
        [view.drawn.rows + offset for view, offset in zip(views, offsets[:-1], strict=True)]
    )
    masks = torch.from_numpy(np.concatenate([view.objects.masks for view in views]))
    index = torch.from_numpy(mask_index)
    labels = np.concatenate([view.labels for view in views])
    boxes = np.concatenate([view.objects.boxes_xyxy for view in views])
    return InstanceBatch(
        pixels=torch.from_numpy(np.stack([view.pixels for view in views])),
        input_hw=tuple(view.input_hw for view in views),
        prompts=to_model_prompts([view.drawn for view in views], masks, index),
        masks=masks,
        mask_index=index,
        labels=torch.from_numpy(labels[mask_index]),
        boxes_xyxy=torch.from_numpy(boxes[mask_index]),
        regions=join_regions([view.regions for view in views]),
        skipped=skipped,
    )
