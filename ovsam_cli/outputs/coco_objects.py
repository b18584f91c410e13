"""Objects of a COCO file, one JSON entry at a time, as detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ovsam_cli.masks import encode_mask, mask_areas, mask_boxes, xywh_to_xyxy
from ovsam_cli.outputs.coco_values import read_box, read_mask
from ovsam_cli.structures import Detections, Prompts, Rle


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One object, checked.

    Attributes:
        annotation_id: the file's, or the object's position where it has none.
        category_id: at least 1.
        segmentation: the mask in the upright image.
        score: of the file; 1 where it has none, as a person's label is certain.
        is_box: the file has no mask, the box stands for it.
    """

    annotation_id: int | str
    category_id: int
    segmentation: Rle
    score: float
    is_box: bool


def read_object(
    entry: Mapping[str, object], index: int, category_id: int, original_hw: tuple[int, int]
) -> CocoObject:
    """Read polygons, run lengths, or the box where there is neither.

    Args:
        entry: of `annotations`.
        index: its position.
        category_id: checked.
        original_hw: (height, width) of its image.

    Raises:
        ValueError: the mask or the box is malformed.
    """
    is_box = not entry.get("segmentation")
    segmentation = _fill_box(entry, original_hw) if is_box else read_mask(entry, original_hw)
    score, annotation_id = entry.get("score"), entry.get("id")
    return CocoObject(
        annotation_id=annotation_id if isinstance(annotation_id, int | str) else index,
        category_id=category_id,
        segmentation=segmentation,
        score=float(score) if isinstance(score, int | float) else 1.0,
        is_box=is_box,
    )


def _fill_box(entry: Mapping[str, object], original_hw: tuple[int, int]) -> Rle:
    bbox = read_box(entry)
    if bbox is None:
        raise ValueError("it has neither a segmentation nor a bbox")
    corners = xywh_to_xyxy(np.array(bbox, np.float64))
    left, top, right, bottom = corners.clip(0, max(original_hw)).round().astype(int).tolist()
    mask = np.zeros(original_hw, bool)
    mask[top:bottom, left:right] = True
    return encode_mask(mask)


def to_detections(objects: Sequence[CocoObject]) -> Detections:
    """Objects of one image; margins and stabilities, which such a file does not have, are 0."""
    segmentations = tuple(one.segmentation for one in objects)
    prompt_ids = tuple(one.annotation_id for one in objects)
    nothing = np.zeros(len(objects), np.float32)
    return Detections(
        prompt_ids=prompt_ids,
        segmentations=segmentations,
        boxes_xyxy=mask_boxes(segmentations),
        areas=mask_areas(segmentations),
        category_ids=np.array([one.category_id for one in objects], np.int64),
        scores=np.array([one.score for one in objects], np.float32),
        margins=nothing,
        stability_scores=nothing,
        topk=((),) * len(objects),
        prompts=_no_prompts(prompt_ids),
    )


def _no_prompts(prompt_ids: tuple[int | str, ...]) -> Prompts:
    count = len(prompt_ids)
    return Prompts(
        prompt_ids=prompt_ids,
        image_index=np.zeros(count, np.int64),
        point_coords=np.zeros((count, 0, 2), np.float32),
        point_labels=np.zeros((count, 0), np.int64),
        boxes_xyxy=np.full((count, 4), np.nan, np.float32),
        masks=(None,) * count,
        prompt_scores=np.full(count, np.nan, np.float32),
    )
