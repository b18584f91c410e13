"""Masks as COCO run lengths: from logits, to boxes, areas, overlaps and polygons.

Pure numpy and pycocotools, which only this module uses. All masks are in the original frame
unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovsam_cli.mask_edges.axes import sample_mask
from ovsam_cli.mask_edges.counts import MaskCounts
from ovsam_cli.mask_edges.encoding import encode_cells
from ovsam_cli.outlines import MaskPolygons, remove_small_regions, trace_outlines
from ovsam_cli.raster import build_bilinear_matrix
from ovsam_cli.run_lengths import parse_counts
from ovsam_cli.structures import BoolArray, FloatArray, ImageGeometry, IntArray, Rle

__all__ = [
    "EncodedMasks",
    "MaskPolygons",
    "compute_stability_scores",
    "decode_mask",
    "decode_mask_columns",
    "encode_mask",
    "encode_mask_logits",
    "encode_polygons",
    "mask_areas",
    "mask_boxes",
    "mask_containment",
    "mask_iou",
    "mask_to_polygons",
    "merge_masks",
    "name_counts",
    "remove_small_regions",
    "upscale_mask_logits",
    "xywh_to_xyxy",
    "xyxy_to_xywh",
]

OverlapArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EncodedMasks:
    """B masks as run lengths with what is read off them.

    Attributes:
        segmentations: (B,) RLE.
        areas: (B,) int64 pixels; 0 for an empty mask.
        boxes_xyxy: (B, 4) float32 pixels, tight, exclusive right and bottom; zeros when empty.
    """

    segmentations: tuple[Rle, ...]
    areas: IntArray
    boxes_xyxy: FloatArray

    def __len__(self) -> int:
        return len(self.segmentations)


def encode_mask(mask: BoolArray) -> Rle:
    """Encode one (H, W) bool mask."""
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return _plain(found)


def encode_polygons(polygons: Sequence[Sequence[float]], original_hw: tuple[int, int]) -> Rle:
    """Encode the union of polygons [x, y, x, y, ...] in pixels, as pycocotools fills them.

    Polygons of fewer than three corners have no area and are left out.

    Raises:
        ValueError: a coordinate is missing or no number.
    """
    for polygon in polygons:
        if len(polygon) % 2 or not set(map(type, polygon)) <= {int, float}:
            raise ValueError("a polygon is a list of pairs of numbers")
    height, width = original_hw
    # Lists of four numbers would be taken for boxes.
    areas = [list(polygon) for polygon in polygons if len(polygon) >= 6]
    if not areas:
        return _plain(coco_mask.encode(np.zeros((height, width), np.uint8, order="F")))
    found = coco_mask.frPyObjects(areas, height, width)
    return _plain(found[0] if len(found) == 1 else coco_mask.merge(found))


def decode_mask(segmentation: Rle) -> BoolArray:
    """Decode to (H, W) bool, Fortran-ordered as the runs are.

    Raises:
        ValueError: the runs do not fill the mask's size.
    """
    height, width = segmentation["size"]
    runs = parse_counts(segmentation["counts"])
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ValueError(f"mask runs do not fill {height} x {width} pixels")
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return columns.T


def decode_mask_columns(segmentation: Rle, left: int, right: int) -> BoolArray:
    """Decode columns `left` to `right` (exclusive) of a checked mask: (H, right - left) bool.

    Runs go down the columns, so what lies left and right of a part is not even unpacked.
    """
    height = segmentation["size"][0]
    ends = parse_counts(segmentation["counts"]).cumsum()
    start, stop = left * height, right * height
    first = int(np.searchsorted(ends, start, "right"))
    last = int(np.searchsorted(ends, stop, "left"))
    edges = np.concatenate([[start], ends[first:last], [stop]])
    is_inside = np.arange(first, last + 1) % 2 == 1
    return np.repeat(is_inside, np.diff(edges)).reshape(right - left, height).T


def _plain(found: dict[str, object]) -> Rle:
    """pycocotools hands out bytes, which JSON does not take."""
    counts, size = found["counts"], found["size"]
    assert isinstance(counts, bytes) and isinstance(size, list)
    return Rle(size=[int(side) for side in size], counts=counts.decode("ascii"))


def mask_areas(segmentations: Sequence[Rle]) -> IntArray:
    """(B,) int64 pixels."""
    if not segmentations:
        return np.empty(0, np.int64)
    return np.asarray(coco_mask.area(list(segmentations))).astype(np.int64)


def mask_boxes(segmentations: Sequence[Rle]) -> FloatArray:
    """(B, 4) float32 tight xyxy boxes, exclusive right and bottom; zeros for an empty mask."""
    if not segmentations:
        return np.empty((0, 4), np.float32)
    return xywh_to_xyxy(np.asarray(coco_mask.toBbox(list(segmentations))))


def xyxy_to_xywh(boxes_xyxy: FloatArray) -> FloatArray:
    """(..., 4) corners to COCO's x, y, width, height."""
    boxes = np.asarray(boxes_xyxy, np.float32)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def xywh_to_xyxy(boxes_xywh: NDArray[np.floating]) -> FloatArray:
    """(..., 4) COCO boxes to corners."""
    boxes = np.asarray(boxes_xywh, np.float32)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] + boxes[..., :2]], axis=-1)


def mask_iou(left: Sequence[Rle], right: Sequence[Rle]) -> OverlapArray:
    """(A, B) intersection over union of A against B masks of one image; 0 where both empty."""
    return _overlap(left, right, crowd=False)


def mask_containment(inner: Sequence[Rle], outer: Sequence[Rle]) -> OverlapArray:
    """(A, B) share of each of A masks that lies inside each of B; 0 for an empty inner mask."""
    return _overlap(inner, outer, crowd=True)


def _overlap(left: Sequence[Rle], right: Sequence[Rle], *, crowd: bool) -> OverlapArray:
    if not left or not right:
        return np.zeros((len(left), len(right)))
    # A "crowd" region makes pycocotools divide by the area of the first mask alone.
    found = coco_mask.iou(list(left), list(right), [int(crowd)] * len(right))
    return np.nan_to_num(np.asarray(found, np.float64))


def merge_masks(segmentations: Sequence[Rle]) -> Rle:
    """Union of at least one mask of the same image."""
    return _plain(coco_mask.merge(list(segmentations)))


def upscale_mask_logits(mask_logits: FloatArray, geometry: ImageGeometry) -> FloatArray:
    """Undo padding and resizing, so that logits line up with the image's own pixels.

    Bilinear to the padded model frame, cut to the input frame, bilinear to the original frame
    (spec section 4.3), done as one matrix product an axis because each step is linear.

    Args:
        mask_logits: (..., h, w) float, padded model frame.
        geometry: the sizes recorded by `images.preprocess` for this image.

    Returns:
        (..., H, W) float32 in the original frame, not thresholded.
    """
    rows, columns = _build_upscaling(mask_logits.shape[-2:], geometry)
    upscaled: FloatArray = np.matmul(np.matmul(rows, mask_logits), columns.T)
    return upscaled


def _build_upscaling(
    low_hw: tuple[int, ...], geometry: ImageGeometry
) -> tuple[FloatArray, FloatArray]:
    """Matrices (H, h) and (W, w) from low-resolution cells to original pixels."""
    rows, columns = (
        build_bilinear_matrix(inner, outer)
        @ build_bilinear_matrix(cells, geometry.model_size)[:inner]
        for cells, inner, outer in zip(low_hw, geometry.input_hw, geometry.original_hw, strict=True)
    )
    return rows, columns


def encode_mask_logits(
    mask_logits: FloatArray,
    geometry: ImageGeometry,
    *,
    mask_threshold: float = 0.0,
    compiled: bool = False,
) -> EncodedMasks:
    """Threshold `upscale_mask_logits` and encode, without a full-size mask.

    Pixels may differ from its result only where its logit is within rounding of the threshold.
    Run lengths, areas and boxes are read off where the mask changes (see `mask_edges`).

    Args:
        mask_logits: (B, h, w) float, padded model frame.
        geometry: of the image all B masks belong to.
        mask_threshold: cut on logits.
        compiled: use Numba; see `mask_edges.encoding.is_compiling_worthwhile`.
    """
    low_height, low_width = mask_logits.shape[-2:]
    sampling = sample_mask((low_height, low_width), geometry)
    if sampling is None:
        return _encode_densely(mask_logits, geometry, mask_threshold)
    cells = np.asarray(mask_logits, np.float32)
    if mask_threshold:
        cells = cells - np.float32(mask_threshold)
    return name_counts(encode_cells(cells, sampling, compiled=compiled), geometry)


def name_counts(found: MaskCounts, geometry: ImageGeometry) -> EncodedMasks:
    """Encoded masks of an image in the form that the stages exchange."""
    height, width = geometry.original_hw
    segmentations = tuple(Rle(size=[height, width], counts=counts) for counts in found.counts)
    return EncodedMasks(segmentations, found.areas, found.boxes_xyxy)


def _encode_densely(
    mask_logits: FloatArray, geometry: ImageGeometry, mask_threshold: float
) -> EncodedMasks:
    """The same of sizes that no model has: more cells than model pixels, or fewer than three."""
    segmentations = tuple(
        encode_mask(upscale_mask_logits(one, geometry) > mask_threshold) for one in mask_logits
    )
    return EncodedMasks(segmentations, mask_areas(segmentations), mask_boxes(segmentations))


def compute_stability_scores(
    mask_logits: FloatArray, *, mask_threshold: float = 0.0, offset: float = 1.0
) -> FloatArray:
    """IoU of each mask cut at `mask_threshold + offset` and at `mask_threshold - offset`.

    Args:
        mask_logits: (..., H, W) float, any frame.

    Returns:
        (...) float32 in [0, 1]; 0 where the lower cut is empty.
    """
    high = (mask_logits > mask_threshold + offset).sum(axis=(-2, -1))
    low = (mask_logits > mask_threshold - offset).sum(axis=(-2, -1))
    return np.asarray(high / np.maximum(low, 1), np.float32)


def mask_to_polygons(segmentation: Rle) -> MaskPolygons:
    """Outline a mask along its pixel edges; rasterizing it again gives back all but holes.

    The edge outline is half a pixel outside the pixel centers (the +0.5 shift that center-line
    contours need), and pycocotools rasterizes it without loss.
    """
    left, top, right, bottom = (int(side) for side in mask_boxes([segmentation])[0])
    mask = decode_mask(segmentation)[top:bottom, left:right]
    found = trace_outlines(mask)
    shift = (float(left), float(top))
    moved = (
        tuple(value + shift[index % 2] for index, value in enumerate(polygon))
        for polygon in found.polygons
    )
    return MaskPolygons(tuple(moved), found.num_holes)


def list_run_lengths(rle: Rle) -> list[int]:
    """Lengths of the runs column by column, the first one of background."""
    flat = decode_mask(rle).ravel(order="F")
    starts = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], starts, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths
