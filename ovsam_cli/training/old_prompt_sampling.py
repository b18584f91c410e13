"""Prompts for training: boxes with a detector's noise, centres, random points, several points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import BoolArray, FloatArray, IntArray
from ovsam_cli.training.bank import BankView

MAX_POINTS = 4
KINDS = ("box", "center", "point", "points", "box and point", "mask and point")
KIND_PROBS = (0.35, 0.34, 0.17, 0.08, 0.03, 0.03)
EXACT_BOX_SHARE = 0.5
SMALL_PREFERENCE = 0.25  # exponent of the area
BOX_NOISE = 0.06  # deviation of a side, as a share of the box
MASK_PROMPT_LOGIT = 10.0


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """B prompts of I views with their true masks.

    Attributes:
        trunk_maps: four (I, C_l, h_l, w_l) float maps.
        prompts: B prompts, padded model frame.
        masks: (U, S, S) bool, the objects of all views.
        mask_index: (B,) int64 rows of `masks`.
        boxes_xyxy: (B, 4) float true boxes in pixels.
    """

    trunk_maps: tuple[Tensor, ...]
    prompts: ModelPrompts
    masks: Tensor
    mask_index: Tensor
    boxes_xyxy: Tensor


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt in pixels; `box` zeros and `labels` -1 where there is none."""

    points: FloatArray  # (MAX_POINTS, 2)
    labels: IntArray  # (MAX_POINTS,)
    box: FloatArray  # (4,)
    uses_mask: bool


def build_batch(
    views: Sequence[BankView], num_prompts: int, rng: np.random.Generator
) -> TrainingBatch:
    """Sample `num_prompts` prompts a view.

    Every object of a view is prompted before one is prompted again (spec section 7.2); of more
    objects than prompts the small ones are taken rather.
    """
    prompts, rows, image_index, offset = [], [], [], 0
    for number, view in enumerate(views):
        share = view.masks.sum(axis=(1, 2)) ** -SMALL_PREFERENCE
        order = rng.choice(len(share), len(share), replace=False, p=share / share.sum())
        chosen = np.resize(order, num_prompts)
        prompts += [_sample_prompt(view.masks[row], rng) for row in chosen]
        rows += [offset + int(row) for row in chosen]
        image_index += [number] * num_prompts
        offset += len(view.masks)
    masks = np.concatenate([view.masks for view in views])
    mask_index = torch.tensor(rows)
    all_masks = torch.from_numpy(masks)
    boxes = torch.from_numpy(np.stack([find_tight_box(masks[row]) for row in rows]))
    return TrainingBatch(
        trunk_maps=tuple(
            torch.cat(level) for level in zip(*(view.trunk_maps for view in views), strict=True)
        ),
        prompts=_to_model_prompts(prompts, torch.tensor(image_index), all_masks, mask_index),
        masks=all_masks,
        mask_index=mask_index,
        boxes_xyxy=boxes,
    )


def _sample_prompt(mask: BoolArray, rng: np.random.Generator) -> _Prompt:
    kind = KINDS[rng.choice(len(KINDS), p=KIND_PROBS)]
    points = np.zeros((MAX_POINTS, 2), np.float32)
    labels = np.full(MAX_POINTS, -1, np.int64)
    box = np.zeros(4, np.float32)
    if kind in ("box", "box and point"):
        box = _jitter_box(find_tight_box(mask), len(mask), rng)
    if kind == "center":
        points[0], labels[0] = _central_point(mask), 1
    elif kind == "points":
        count = int(rng.integers(2, MAX_POINTS + 1))
        has_background = not mask.all()
        for row in range(count):
            is_foreground = row == 0 or rng.random() < 0.6 or not has_background
            points[row] = _random_point(mask if is_foreground else _surroundings(mask), rng)
            labels[row] = int(is_foreground)
    elif kind != "box":
        points[0], labels[0] = _random_point(mask, rng), 1
    return _Prompt(points, labels, box, kind == "mask and point")


def find_tight_box(mask: BoolArray) -> FloatArray:
    """(4,) float32 xyxy box of an (H, W) mask that is not empty; exclusive right and bottom."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.asarray(edges, np.float32)


def _jitter_box(box: FloatArray, model_size: int, rng: np.random.Generator) -> FloatArray:
    if rng.random() < EXACT_BOX_SHARE:
        return box
    sides = np.tile(box[2:] - box[:2], 2)
    noise = rng.normal(0, BOX_NOISE, 4) * sides + rng.normal(0, 0.7, 4)
    noisy = (box + noise).clip(0, model_size)
    noisy[2:] = np.maximum(noisy[2:], noisy[:2] + 2)
    return noisy.astype(np.float32)


def _central_point(mask: BoolArray) -> FloatArray:
    """The pixel whose surroundings belong to the mask most: near the deepest, and cheap."""
    left, top, right, bottom = find_tight_box(mask).astype(int)
    # Every step-th pixel: the blur below would be slow on a large mask.
    step = max(1, min(right - left, bottom - top) // 24)
    if not mask[top:bottom:step, left:right:step].any():
        step = 1  # too thin for that
    part = torch.from_numpy(mask[top:bottom:step, left:right:step]).float()[None, None]
    size = max(1, min(part.shape[-2:]) // 4)
    depth = part
    for _ in range(2):
        depth = F.avg_pool2d(depth, 2 * size + 1, 1, size)
    best = int((depth * part).argmax())
    width = part.shape[-1]
    return np.asarray((left + best % width * step, top + best // width * step), np.float32)


def _random_point(mask: BoolArray, rng: np.random.Generator) -> FloatArray:
    rows, columns = np.nonzero(mask)
    chosen = rng.integers(len(rows))
    return np.asarray((columns[chosen], rows[chosen]), np.float32)


def _surroundings(mask: BoolArray) -> BoolArray:
    """Background inside the box grown by a quarter; the mask must leave some."""
    left, top, right, bottom = find_tight_box(mask).astype(int)
    grow_x, grow_y = (right - left) // 4 + 2, (bottom - top) // 4 + 2
    near = np.zeros_like(mask)
    near[max(0, top - grow_y) : bottom + grow_y, max(0, left - grow_x) : right + grow_x] = True
    around: BoolArray = near & ~mask
    return around


def _to_model_prompts(
    prompts: Sequence[_Prompt], image_index: Tensor, masks: Tensor, mask_index: Tensor
) -> ModelPrompts:
    has_mask = torch.tensor([prompt.uses_mask for prompt in prompts])
    mask_logits = None
    if bool(has_mask.any()):
        side = masks.shape[-1] // 4
        mask_logits = torch.zeros(len(prompts), 1, side, side)
        chosen = masks[mask_index[has_mask]][:, None].float()
        # A rough mask, as a first pass would leave it: blurred, so that corners are lost.
        share = F.avg_pool2d(F.avg_pool2d(chosen, 4), 5, 1, 2)
        mask_logits[has_mask] = MASK_PROMPT_LOGIT * (2 * share - 1)
    boxes = torch.from_numpy(np.stack([prompt.box for prompt in prompts]))
    return ModelPrompts(
        image_index=image_index,
        point_coords=torch.from_numpy(np.stack([prompt.points for prompt in prompts])),
        point_labels=torch.from_numpy(np.stack([prompt.labels for prompt in prompts])),
        model_boxes_xyxy=boxes,
        has_box=(boxes[:, 2] > boxes[:, 0]),
        prompt_mask_logits=mask_logits,
        has_mask=None if mask_logits is None else has_mask,
    )
