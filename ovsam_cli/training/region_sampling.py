"""Boxes to name besides those of prompts: noisy ones, as masks give them, and empty ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.structures import BoolArray, FloatArray, IntArray
from ovsam_cli.training.augmentation import CutMasks
from ovsam_cli.training.instance_sets import NO_LABEL
from ovsam_cli.training.prompt_sampling import add_box_noise


@dataclass(frozen=True, slots=True)
class NamedRegions:
    """R boxes to name that are not those of the prompts.

    Attributes:
        boxes_xyxy: (R, 4) float, padded model frame.
        labels: (R,) int64 rows of the text embeddings; K is background.
        image_index: (R,) int64.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    image_index: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return replace(
            self,
            **{
                name: getattr(self, name).to(device, non_blocking=True)
                for name in ("boxes_xyxy", "labels", "image_index")
            },
        )


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """Boxes to name: every object's own, noisy copies, and boxes without an object.

    Attributes:
        num_noisy: copies of each object's box with a mask's faults.
        noise: deviation of a side, as a share of the box.
        num_background: boxes a view that objects fill by less than a tenth.
        min_side, max_side: of those, in pixels of the model frame.
    """

    num_noisy: int = 1
    noise: float = 0.08
    num_background: int = 2
    min_side: float = 16.0
    max_side: float = 200.0


def draw_regions(
    objects: CutMasks,
    labels: IntArray,
    options: RegionOptions,
    num_categories: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, IntArray]:
    """Draw the boxes of one view.

    Args:
        objects: of the view.
        labels: (n,) int64 of the objects; those without a class give no box.
        options: how many of which.
        num_categories: K, the label of background.
        rng: of the randomness.

    Returns:
        (R, 4) float32 boxes, model frame, and (R,) int64 labels.
    """
    size = objects.masks.shape[-1]
    named = labels != NO_LABEL
    boxes, names = objects.boxes_xyxy[named], labels[named]
    found = [boxes]
    found += [add_box_noise(boxes, size, options.noise, rng) for _ in range(options.num_noisy)]
    rows = [names] * len(found)
    if options.num_background:
        occupied: BoolArray = np.logical_or.reduce(objects.masks[:, ::4, ::4])
        empty = _find_empty_boxes(occupied, size, options, rng)
        found.append(empty)
        rows.append(np.full(len(empty), num_categories, np.int64))
    return np.concatenate(found), np.concatenate(rows)


def _find_empty_boxes(
    occupied: BoolArray, size: int, options: RegionOptions, rng: np.random.Generator
) -> FloatArray:
    """At most `num_background` random boxes; `occupied` has every fourth pixel of the frame."""
    found = []
    low, high = np.log(options.min_side), np.log(min(options.max_side, size / 2))
    for _ in range(5 * options.num_background):
        sides = np.exp(rng.uniform(low, high, 2))
        left, top = rng.uniform(0, size - sides)
        box = np.asarray((left, top, left + sides[0], top + sides[1]), np.float32)
        x0, y0, x1, y1 = (box / 4).astype(int).tolist()
        if occupied[y0 : y1 + 1, x0 : x1 + 1].mean() < 0.1:
            found.append(box)
        if len(found) == options.num_background:
            break
    return np.asarray(found, np.float32).reshape(-1, 4)


def join_regions(views: Sequence[tuple[FloatArray, IntArray] | None]) -> NamedRegions | None:
    """The regions of all views of a batch; None when they have none."""
    found = [view for view in views if view is not None]
    if not found:
        return None
    counts = torch.tensor([len(boxes) for boxes, _ in found])
    return NamedRegions(
        boxes_xyxy=torch.from_numpy(np.concatenate([boxes for boxes, _ in found])),
        labels=torch.from_numpy(np.concatenate([labels for _, labels in found])),
        image_index=torch.arange(len(found)).repeat_interleave(counts),
    )
