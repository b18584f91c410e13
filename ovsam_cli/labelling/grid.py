"""The automatic mode: points on a grid, and one mask for each object they find.

Grid, stability and the edge rule follow SAM's automatic mask generator (Kirillov et al. 2023,
appendix B), and so do filter and order by predicted IoU where the model predicts it; the
published OVSAM weights do not, and stability filters and orders instead. Duplicates are removed
before recognition, on low-resolution masks of one bit a cell, so that only the survivors are
classified and enlarged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovsam_cli.labelling.crops import Crop
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.structures import BoolArray, FloatArray, ImageGeometry, IntArray, Prompts

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
class GridMasks:
    """N low-resolution masks, one bit a cell, with what the filters ask of them.

    Attributes:
        bits: (N, L) uint64, the h * w cells in row order, filled up with zeros.
        areas: (N,) int64 cells inside the image.
        boxes_xyxy: (N, 4) int64 cells, tight, exclusive right and bottom; zeros when empty.
        stability_scores: (N,) float32.
        hw: (h, w) cells that cover the image; the padding is cut off.
        cell_size: side of a cell in pixels of the input frame.
        iou_predictions: (N,) float32, or None where the model predicts none.
    """

    bits: NDArray[np.uint64]
    areas: IntArray
    boxes_xyxy: IntArray
    stability_scores: FloatArray
    hw: tuple[int, int]
    cell_size: float
    iou_predictions: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def qualities(self) -> FloatArray:
        """(N,) float32 what the better of two masks has more of: predicted IoU, else stability."""
        return self.stability_scores if self.iou_predictions is None else self.iou_predictions

    def take(self, rows: IntArray) -> GridMasks:
        """The masks at `rows`, in that order."""
        return GridMasks(
            self.bits[rows],
            self.areas[rows],
            self.boxes_xyxy[rows],
            self.stability_scores[rows],
            self.hw,
            self.cell_size,
            None if self.iou_predictions is None else self.iou_predictions[rows],
        )

    @staticmethod
    def concatenate(parts: Sequence[GridMasks]) -> GridMasks:
        """Join masks of the same image or crop; at least one part."""
        ious = [part.iou_predictions for part in parts if part.iou_predictions is not None]
        return GridMasks(
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.areas for part in parts]),
            np.concatenate([part.boxes_xyxy for part in parts]),
            np.concatenate([part.stability_scores for part in parts]),
            parts[0].hw,
            parts[0].cell_size,
            np.concatenate(ious) if ious else None,
        )


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


def measure_masks(
    decoded: DecodedMasks, geometry: ImageGeometry, *, stability_offset: float = 1.0
) -> GridMasks:
    """Pack a chunk of masks and measure them where they are; only bits leave the device.

    Args:
        decoded: B prompts with M = 1 mask each, any device.
        geometry: of the image or crop.
        stability_offset: logits by which a mask is cut higher and lower; SAM's is 1.
    """
    mask_logits, ious = decoded.mask_logits, decoded.iou_predictions
    height, width = mask_logits.shape[-2:]
    rows = -(-geometry.input_hw[0] * height // geometry.model_size)
    columns = -(-geometry.input_hw[1] * width // geometry.model_size)
    inside = mask_logits[:, 0, :rows, :columns]
    above = inside > 0  # (B, rows, columns)
    high, low = (_count(inside > cut) for cut in (stability_offset, -stability_offset))
    return GridMasks(
        bits=(bits := _pack_bits(above.cpu().numpy())),
        areas=_count_bits(bits),
        boxes_xyxy=_find_boxes(above),
        stability_scores=(high / np.maximum(low, 1)).astype(np.float32),
        hw=(rows, columns),
        cell_size=geometry.model_size / width,
        iou_predictions=None if ious is None else ious[:, 0].float().cpu().numpy(),
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


def _count(masks: Tensor) -> IntArray:
    """(N, h, w) bool -> (N,) int64 cells that are true."""
    if masks.is_cuda:
        return masks.sum(dim=(1, 2)).cpu().numpy().astype(np.int64)
    return _count_bits(_pack_bits(masks.numpy()))  # torch adds bools ten times slower


def _count_bits(bits: NDArray[np.uint64]) -> IntArray:
    """(N, L) uint64 -> (N,) int64."""
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))


def _find_boxes(masks: Tensor) -> IntArray:
    """(N, h, w) bool -> (N, 4) int64 tight xyxy, exclusive right and bottom; zeros when empty."""
    if masks.is_cuda:
        lit_rows, lit_columns = (masks.any(dim=axis).cpu().numpy() for axis in (2, 1))
    else:  # NumPy looks at eight cells at once
        lit_rows = np.asarray(np.packbits(masks.numpy(), axis=2).any(axis=2))
        lit_columns = np.bitwise_or.reduce(masks.numpy(), axis=1)
    (y0, y1), (x0, x1) = _find_extent(lit_rows), _find_extent(lit_columns)
    return np.stack([x0, y0, x1, y1], axis=1)


def _find_extent(lit: BoolArray) -> tuple[IntArray, IntArray]:
    """(N, n) bool -> first lit position and one behind the last, both (N,); zeros if none is."""
    is_any, from_end = lit.any(axis=1), lit[:, ::-1].argmax(axis=1)
    return lit.argmax(axis=1) * is_any, (lit.shape[1] - from_end) * is_any


def _pack_bits(masks: BoolArray) -> NDArray[np.uint64]:
    """(N, h, w) bool -> (N, L) uint64."""
    flat = np.packbits(masks.reshape(len(masks), masks.shape[1] * masks.shape[2]), axis=1)
    filled = np.pad(flat, [(0, 0), (0, -flat.shape[1] % 8)])
    return filled.view(np.uint64)


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
