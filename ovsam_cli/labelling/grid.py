"""The automatic mode: points on a grid, and one mask for each object they find.

Grid, stability and the edge rule follow SAM's automatic mask generator (Kirillov et al. 2023,
appendix B), and so do filter and order by predicted IoU where the model predicts it; the
published OVSAM weights do not, and stability filters and orders instead. Duplicates are removed
before recognition, on low-resolution masks of one bit a cell, so that only the survivors are
classified and enlarged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ovsam_cli.labelling.crops import Crop
from ovsam_cli.labelling.grid_masks import GridMasks
from ovsam_cli.structures import BoolArray, ImageGeometry, IntArray, Prompts

GridDropReason = Literal[
    "empty_mask",
    "low_predicted_iou",
    "low_stability",
    "whole_image",
    "cut_by_crop",
    "duplicate",
]
EDGE_TOLERANCE = 20  # original pixels, as in SAM's generator


@dataclass(frozen=True, slots=True)
class DistinctOptions:
    """When a mask of the grid is an object of its own.

    Attributes:
        min_stability: lowest stability, in [0, 1].
        min_predicted_iou: lowest predicted IoU; None, or masks without one, for no such filter.
        max_iou: a mask that overlaps a better one by more is the same object.
        max_containment: so is one of similar size that lies inside another, or holds it, by more
            than this share of the smaller; a part of another size is an object of its own.
        similar_area: the smaller area over the larger from which sizes are similar.
        max_image_share: a mask over a larger share of the image is no object.
    """

    min_stability: float = 0.9
    min_predicted_iou: float | None = None
    max_iou: float = 0.7
    max_containment: float = 0.9
    similar_area: float = 0.6
    max_image_share: float = 0.95


@dataclass(frozen=True, slots=True)
class DistinctMasks:
    """Which of N masks stay, best first, and how many were dropped for which reason."""

    rows: IntArray
    num_dropped: Mapping[GridDropReason, int]


def prompts_from_grid(
    hw: tuple[int, int], *, points_per_side: int, first_prompt_id: int = 0
) -> Prompts:
    """One positive point in the middle of each cell of an even grid, row by row.

    Args:
        hw: (height, width) of the image or crop; the points are in its own pixels.
        points_per_side: N; there are N * N prompts.
        first_prompt_id: ids count up from here, so that crops of one image can differ.
    """
    count = points_per_side**2
    steps = (np.arange(points_per_side, dtype=np.float32) + 0.5) / points_per_side
    unit_xy = np.stack([np.tile(steps, points_per_side), np.repeat(steps, points_per_side)], axis=1)
    height, width = hw
    return Prompts(
        prompt_ids=tuple(range(first_prompt_id, first_prompt_id + count)),
        image_index=np.zeros(count, np.int64),
        point_coords=(unit_xy * np.array([width, height], np.float32))[:, None],
        point_labels=np.ones((count, 1), np.int64),
        boxes_xyxy=np.full((count, 4), np.nan, np.float32),
        masks=(None,) * count,
        prompt_scores=np.full(count, np.nan, np.float32),
    )


def find_good(found: GridMasks, options: DistinctOptions) -> IntArray:
    """The rows that are stable and, where predicted, of enough IoU; in order."""
    is_good = found.stability_scores >= options.min_stability
    return np.flatnonzero(is_good & ~_has_low_iou(found, options))


def _has_low_iou(found: GridMasks, options: DistinctOptions) -> BoolArray:
    """(N,) bool; a prediction that is no number counts as low."""
    if found.iou_predictions is None or options.min_predicted_iou is None:
        return np.zeros(len(found), bool)
    return ~(found.iou_predictions >= options.min_predicted_iou)


def keep_distinct(
    found: GridMasks,
    geometry: ImageGeometry,
    crop: Crop,
    original_hw: tuple[int, int],
    options: DistinctOptions,
) -> DistinctMasks:
    """Drop what is empty, poor, unstable, cut by its crop or found already, best first.

    Duplicates go by greedy removal: the mask of highest predicted IoU stays, those like it go, and
    so on; stability decides where the model predicts none. Equals keep the order of the prompts.

    Args:
        found: N masks of one image or crop.
        geometry: of that image or crop.
        crop: where it lies in the image.
        original_hw: (height, width) of the whole image.
        options: when a mask is an object of its own.
    """
    dropped: Counter[GridDropReason] = Counter()
    order = np.argsort(-found.qualities, kind="stable")
    is_cut = _touches_crop_edge(found, geometry, crop, original_hw)
    filters: list[tuple[GridDropReason, BoolArray]] = [
        ("empty_mask", found.areas == 0),
        ("low_predicted_iou", _has_low_iou(found, options)),
        ("low_stability", found.stability_scores < options.min_stability),
        ("whole_image", found.areas > options.max_image_share * found.hw[0] * found.hw[1]),
        ("cut_by_crop", is_cut),
    ]
    for reason, is_out in filters:
        num_before = len(order)
        order = order[~is_out[order]]
        dropped[reason] += num_before - len(order)
    rows = _remove_duplicates(found, order, options)
    dropped["duplicate"] += len(order) - len(rows)
    return DistinctMasks(rows, {reason: count for reason, count in dropped.items() if count})


def _touches_crop_edge(
    found: GridMasks, geometry: ImageGeometry, crop: Crop, original_hw: tuple[int, int]
) -> BoolArray:
    """(N,) bool: ends at an edge of the crop that is no edge of the image, so may be cut there."""
    input_boxes = (found.boxes_xyxy * found.cell_size).astype(np.float32)
    boxes = geometry.to_original_frame(input_boxes)  # pixels of the crop
    (height, width), (x0, y0, x1, y1) = original_hw, crop.box_xyxy
    to_crop_edge = [boxes[:, 0], boxes[:, 1], x1 - x0 - boxes[:, 2], y1 - y0 - boxes[:, 3]]
    to_image_edge = [x0, y0, width - x1, height - y1]
    is_cut = np.zeros(len(found), bool)
    for of_box, of_crop in zip(to_crop_edge, to_image_edge, strict=True):
        if of_crop > EDGE_TOLERANCE:
            is_cut |= of_box <= EDGE_TOLERANCE
    return is_cut


def _remove_duplicates(found: GridMasks, order: IntArray, options: DistinctOptions) -> IntArray:
    """The rows of `order` that are like none kept before them."""
    bits, areas, boxes = found.bits[order], found.areas[order], found.boxes_xyxy[order]
    lowest_ratio = min(options.max_iou, options.similar_area)  # IoU cannot exceed the area ratio
    is_left = np.ones(len(order), bool)
    kept = []
    for row in range(len(order)):
        if not is_left[row]:
            continue
        kept.append(row)
        x0, y0, x1, y1 = boxes[row]
        is_near = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
        smaller, larger = np.minimum(areas, areas[row]), np.maximum(areas, areas[row])
        rivals = np.flatnonzero(is_left & is_near & (smaller >= lowest_ratio * larger))
        rivals = rivals[rivals > row]
        shared = np.bitwise_count(bits[rivals] & bits[row]).sum(axis=1, dtype=np.int64)
        union = areas[rivals] + areas[row] - shared
        is_inside = shared > options.max_containment * smaller[rivals]
        is_similar = smaller[rivals] >= options.similar_area * larger[rivals]
        is_left[rivals[(shared > options.max_iou * union) | (is_inside & is_similar)]] = False
    return order[kept]
