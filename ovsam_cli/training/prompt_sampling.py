"""Training prompts drawn from true masks: the published rule, and the mixture `tiny` learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import BoolArray, FloatArray, IntArray
from ovsam_cli.training.augmentation import CutMasks

KINDS = ("box", "center", "point", "points", "box and point", "mask and point")
MASK_PROMPT_LOGIT = 10.0


@dataclass(frozen=True, slots=True)
class DrawnPrompts:
    """P prompts of one view, model frame.

    Attributes:
        rows: (P,) int64, the object each asks for.
        point_coords: (P, N, 2) float32 pixels (x, y).
        point_labels: (P, N) int64: 1 foreground, 0 background, -1 none.
        boxes_xyxy: (P, 4) float32; zeros where there is none.
        uses_mask: (P,) bool, also given a rough mask.
    """

    rows: IntArray
    point_coords: FloatArray
    point_labels: IntArray
    boxes_xyxy: FloatArray
    uses_mask: BoolArray


class PromptRule(Protocol):
    """How prompts are drawn."""

    def draw(self, objects: CutMasks, rng: np.random.Generator) -> DrawnPrompts:
        """Draw the prompts of one view."""


@dataclass(frozen=True, slots=True)
class PublishedPrompts:
    """Of 40 prompts an image 21 are true boxes and 19 random foreground points (spec 7.2).

    The objects are repeated cyclically, the first `num_prompts` of that list are kept; each
    draws a point, the list is shuffled, and its first n // 2 + 1 become boxes.
    """

    num_prompts: int = 40

    def draw(self, objects: CutMasks, rng: np.random.Generator) -> DrawnPrompts:
        """Draw the prompts of one view."""
        num = self.num_prompts
        rows = np.resize(np.arange(len(objects.rows)), num)
        points = np.stack([_random_point(objects, int(row), rng) for row in rows])
        order = rng.permutation(num)
        rows, points = rows[order], points[order]
        num_boxes = num // 2 + 1
        boxes = objects.boxes_xyxy[rows]
        boxes[num_boxes:] = 0
        points[:num_boxes] = 0
        labels = np.ones((num, 1), np.int64)
        labels[:num_boxes] = -1
        return DrawnPrompts(rows, points[:, None], labels, boxes, np.zeros(num, bool))


@dataclass(frozen=True, slots=True)
class MixedPrompts:
    """Boxes with a detector's noise, centers, random points, several points, rough masks.

    Every object of a view is prompted before one is prompted again; of more objects than
    prompts the small ones are taken rather.

    Attributes:
        num_prompts: a view.
        kind_probs: of `KINDS`.
        max_points: of a prompt of several.
        exact_box_share: of boxes without noise.
        box_noise: deviation of a side, as a share of the box.
        small_preference: exponent of the area.
    """

    num_prompts: int = 10
    kind_probs: tuple[float, ...] = (0.35, 0.34, 0.17, 0.08, 0.03, 0.03)
    max_points: int = 4
    exact_box_share: float = 0.5
    box_noise: float = 0.06
    small_preference: float = 0.25

    def draw(self, objects: CutMasks, rng: np.random.Generator) -> DrawnPrompts:
        """Draw the prompts of one view."""
        num, count = self.num_prompts, len(objects.rows)
        share = np.count_nonzero(objects.masks, axis=(1, 2)) ** -self.small_preference
        order = rng.choice(count, count, replace=False, p=share / share.sum())
        rows = np.resize(order, num)
        points = np.zeros((num, self.max_points, 2), np.float32)
        labels = np.full((num, self.max_points), -1, np.int64)
        boxes = np.zeros((num, 4), np.float32)
        kinds = rng.choice(len(KINDS), num, p=self.kind_probs)
        for number, (row, kind) in enumerate(zip(rows.tolist(), kinds.tolist(), strict=True)):
            name = KINDS[kind]
            if name in ("box", "box and point"):
                boxes[number] = self._disturb_box(objects, row, rng)
            if name == "center":
                points[number, 0], labels[number, 0] = _central_point(objects, row), 1
            elif name == "points":
                self._draw_points(objects, row, rng, (points[number], labels[number]))
            elif name != "box":
                points[number, 0], labels[number, 0] = _random_point(objects, row, rng), 1
        return DrawnPrompts(rows, points, labels, boxes, kinds == KINDS.index("mask and point"))

    def _draw_points(
        self,
        objects: CutMasks,
        row: int,
        rng: np.random.Generator,
        into: tuple[FloatArray, IntArray],
    ) -> None:
        """Two to `max_points` points, the first on the object."""
        points, labels = into
        for number in range(int(rng.integers(2, self.max_points + 1))):
            point = None
            if number > 0 and rng.random() >= 0.6:
                point = _random_background(objects, row, rng)
            labels[number] = int(point is None)
            points[number] = _random_point(objects, row, rng) if point is None else point

    def _disturb_box(self, objects: CutMasks, row: int, rng: np.random.Generator) -> FloatArray:
        box: FloatArray = objects.boxes_xyxy[row : row + 1]
        if rng.random() >= self.exact_box_share:
            box = add_box_noise(box, objects.masks.shape[-1], self.box_noise, rng)
        return box.reshape(4)


def add_box_noise(
    boxes_xyxy: FloatArray, model_size: int, noise: float, rng: np.random.Generator
) -> FloatArray:
    """Move each side of (n, 4) boxes by a share of the box and a fraction of a pixel."""
    sides = np.tile(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], (1, 2))
    shift = rng.normal(0, noise, boxes_xyxy.shape) * sides + rng.normal(0, 0.7, boxes_xyxy.shape)
    noisy = (boxes_xyxy + shift).clip(0, model_size)
    noisy[:, 2:] = np.maximum(noisy[:, 2:], noisy[:, :2] + 2)
    return noisy.astype(np.float32)


def _part(objects: CutMasks, row: int, grow: int = 0) -> tuple[BoolArray, int, int]:
    """The mask within its box, grown by pixels and a quarter if asked; its left and top."""
    left, top, right, bottom = objects.boxes_xyxy[row].astype(int).tolist()
    if grow:
        grow_x, grow_y = (right - left) // 4 + grow, (bottom - top) // 4 + grow
        left, top = max(0, left - grow_x), max(0, top - grow_y)
        right, bottom = right + grow_x, bottom + grow_y
    return objects.masks[row, top:bottom, left:right], left, top


def _random_point(objects: CutMasks, row: int, rng: np.random.Generator) -> FloatArray:
    """(2,) a foreground pixel, each as likely."""
    part, left, top = _part(objects, row)
    return _choose(part, left, top, rng)


def _random_background(objects: CutMasks, row: int, rng: np.random.Generator) -> FloatArray | None:
    """(2,) a pixel around the object; None when it leaves none."""
    part, left, top = _part(objects, row, grow=2)
    return None if part.all() else _choose(~part, left, top, rng)


def _choose(part: BoolArray, left: int, top: int, rng: np.random.Generator) -> FloatArray:
    places = np.flatnonzero(part)
    y, x = divmod(int(places[rng.integers(len(places))]), part.shape[1])
    return np.asarray((left + x, top + y), np.float32)


def _central_point(objects: CutMasks, row: int) -> FloatArray:
    """The pixel whose surroundings belong to the mask most: near the deepest, and cheap."""
    whole, left, top = _part(objects, row)
    # Every step-th pixel: the blur below would be slow on a large mask.
    step = max(1, min(whole.shape) // 24)
    part = whole[::step, ::step]
    if not part.any():
        part, step = whole, 1  # too thin for that
    size = max(1, min(part.shape) // 4)
    depth = _blur(_blur(part.astype(np.float32), size), size)
    y, x = divmod(int((depth * part).argmax()), part.shape[1])
    return np.asarray((left + x * step, top + y * step), np.float32)


def _blur(values: FloatArray, size: int) -> FloatArray:
    """Sums over squares of side 2 size + 1, zeros outside."""
    for _ in range(2):
        sums = np.cumsum(np.pad(values, ((size + 1, size), (0, 0))), axis=0, dtype=np.float32)
        values = (sums[2 * size + 1 :] - sums[: -2 * size - 1]).T
    return values


def to_model_prompts(
    drawn: Sequence[DrawnPrompts], masks: Tensor, mask_index: Tensor
) -> ModelPrompts:
    """Join the prompts of all views of a batch.

    Args:
        drawn: one a view.
        masks: (U, S, S) bool, the objects of all views.
        mask_index: (B,) int64 rows of `masks`.
    """
    boxes = torch.from_numpy(np.concatenate([one.boxes_xyxy for one in drawn]))
    has_mask = torch.from_numpy(np.concatenate([one.uses_mask for one in drawn]))
    mask_logits = None
    if bool(has_mask.any()):
        side = masks.shape[-1] // 4
        mask_logits = torch.zeros(len(boxes), 1, side, side)
        chosen = masks[mask_index[has_mask]][:, None].float()
        # A rough mask, as a first pass would leave it: blurred, so that corners are lost.
        share = F.avg_pool2d(F.avg_pool2d(chosen, 4), 5, 1, 2)
        mask_logits[has_mask] = MASK_PROMPT_LOGIT * (2 * share - 1)
    counts = torch.tensor([len(one.rows) for one in drawn])
    return ModelPrompts(
        image_index=torch.arange(len(drawn)).repeat_interleave(counts),
        point_coords=torch.from_numpy(np.concatenate([one.point_coords for one in drawn])),
        point_labels=torch.from_numpy(np.concatenate([one.point_labels for one in drawn])),
        model_boxes_xyxy=boxes,
        has_box=boxes[:, 2] > boxes[:, 0],
        prompt_mask_logits=mask_logits,
        has_mask=None if mask_logits is None else has_mask,
    )
