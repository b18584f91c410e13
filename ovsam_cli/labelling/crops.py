"""Overlapping parts of an image that the automatic mode labels as images of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ovsam_cli import masks
from ovsam_cli.structures import Detections, IntArray, Prompts, Rle

# Of the image's short side, as in SAM's automatic mask generator.
CROP_OVERLAP_RATIO = 512 / 1500


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image that is labelled as an image of its own.

    Attributes:
        box_xyxy: (x0, y0, x1, y1) whole pixels of the original frame, exclusive right and bottom.
        layer: 0 is the whole image, layer l has 4^l crops.
        points_per_side: of this crop's grid.
    """

    box_xyxy: tuple[int, int, int, int]
    layer: int
    points_per_side: int

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width) in pixels: `original_hw` of the crop as an image."""
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0


def make_crops(
    original_hw: tuple[int, int], *, points_per_side: int, crop_layers: int = 0
) -> tuple[Crop, ...]:
    """The whole image, then layer by layer 2 x 2, 4 x 4, ... crops, each row by row.

    Neighbors of layer l overlap by `CROP_OVERLAP_RATIO` of the short side, halved with each layer
    above the first; a crop of layer l has 2^l times fewer points a side, at least one. Crops that
    would be thinner than two pixels are left out.

    Args:
        original_hw: (height, width) of the image.
        points_per_side: of the whole image.
        crop_layers: number of layers below the whole image.
    """
    height, width = original_hw
    crops = [Crop((0, 0, width, height), 0, points_per_side)]
    for layer in range(1, crop_layers + 1):
        per_side = 2**layer
        overlap = int(CROP_OVERLAP_RATIO * min(original_hw) * 2 / per_side)
        rows = _cut_side(height, per_side, overlap)
        columns = _cut_side(width, per_side, overlap)
        for (y0, y1), (x0, x1) in product(rows, columns):
            if min(y1 - y0, x1 - x0) >= 2:
                crops.append(Crop((x0, y0, x1, y1), layer, max(1, points_per_side // per_side)))
    return tuple(crops)


def _cut_side(length: int, parts: int, overlap: int) -> list[tuple[int, int]]:
    """Equal overlapping intervals that cover 0..length."""
    size = -(-(length + overlap * (parts - 1)) // parts)
    starts = [index * (size - overlap) for index in range(parts)]
    return [(start, min(start + size, length)) for start in starts]


def uncrop_detections(found: Detections, crop: Crop, original_hw: tuple[int, int]) -> Detections:
    """Move objects from a crop's own pixels to the whole image.

    Args:
        found: objects of the crop, in its frame.
        crop: where it lies in the image.
        original_hw: (height, width) of the whole image.
    """
    x0, y0, _, _ = crop.box_xyxy
    shift = np.array([x0, y0], np.float32)
    prompts = replace(
        found.prompts,
        point_coords=found.prompts.point_coords + shift,
        boxes_xyxy=found.prompts.boxes_xyxy + np.tile(shift, 2),
    )
    return replace(
        found,
        segmentations=tuple(_uncrop_mask(rle, crop, original_hw) for rle in found.segmentations),
        boxes_xyxy=found.boxes_xyxy + np.tile(shift, 2),
        prompts=prompts,
    )


def _uncrop_mask(rle: Rle, crop: Crop, original_hw: tuple[int, int]) -> Rle:
    x0, y0, x1, y1 = crop.box_xyxy
    mask = np.zeros(original_hw, bool, order="F")
    mask[y0:y1, x0:x1] = masks.decode_mask(rle)
    return masks.encode_mask(mask)


def merge_crops(parts: Sequence[tuple[Crop, Detections]], *, max_iou: float = 0.7) -> Detections:
    """Join the objects of an image and its crops, each object once.

    Where two masks overlap by more than `max_iou`, that of the deeper layer stays, because it was
    seen larger; within a layer the one of higher predicted IoU, or the more stable one where the
    model predicts none. Crops without objects may be left out.

    Args:
        parts: crops and their objects, already in the frame of the whole image; at least one.
        max_iou: highest IoU of two different objects.
    """
    layers = np.concatenate([np.full(len(found), crop.layer) for crop, found in parts])
    joined = concatenate_detections([found for _, found in parts])
    qualities = joined.stability_scores
    if joined.iou_predictions is not None:
        qualities = joined.iou_predictions
    order = np.lexsort((-qualities, -layers))
    boxes = joined.boxes_xyxy
    is_left = np.ones(len(joined), bool)
    kept = []
    for place, row in enumerate(order):
        if not is_left[row]:
            continue
        kept.append(row)
        later = order[place + 1 :]
        is_near = (boxes[later, :2] < boxes[row, 2:]).all(axis=1)
        is_near &= (boxes[later, 2:] > boxes[row, :2]).all(axis=1)
        rivals = later[is_near & is_left[later]]
        overlap = masks.mask_iou(
            [joined.segmentations[row]], [joined.segmentations[rival] for rival in rivals]
        )
        is_left[rivals[overlap[0] > max_iou]] = False
    return take_detections(joined, np.array(kept, np.int64))


def take_detections(found: Detections, rows: IntArray) -> Detections:
    """The objects at `rows`, in that order."""
    return Detections(
        prompt_ids=tuple(found.prompt_ids[row] for row in rows),
        segmentations=tuple(found.segmentations[row] for row in rows),
        boxes_xyxy=found.boxes_xyxy[rows],
        areas=found.areas[rows],
        category_ids=found.category_ids[rows],
        scores=found.scores[rows],
        margins=found.margins[rows],
        stability_scores=found.stability_scores[rows],
        topk=tuple(found.topk[row] for row in rows),
        prompts=found.prompts.take(rows),
        iou_predictions=None if found.iou_predictions is None else found.iou_predictions[rows],
    )


def concatenate_detections(parts: Sequence[Detections]) -> Detections:
    """The objects of all parts, at least one part, in that order."""
    # A part without objects has no predictions, whatever the model.
    ious = [part.iou_predictions for part in parts if part.iou_predictions is not None]
    return Detections(
        prompt_ids=tuple(name for part in parts for name in part.prompt_ids),
        segmentations=tuple(rle for part in parts for rle in part.segmentations),
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        margins=np.concatenate([part.margins for part in parts]),
        stability_scores=np.concatenate([part.stability_scores for part in parts]),
        topk=tuple(pairs for part in parts for pairs in part.topk),
        prompts=Prompts.concatenate([part.prompts for part in parts]),
        iou_predictions=np.concatenate(ious) if ious else None,
    )
