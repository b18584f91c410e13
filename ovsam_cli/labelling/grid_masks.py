"""Masks of a grid on low-resolution logits: one bit a cell, area, box, stability.

They are measured where the decoder left them, chunk by chunk; only bits and numbers go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.structures import BoolArray, FloatArray, ImageGeometry, IntArray


@dataclass(frozen=True, slots=True)
class GridMasks:
    """N low-resolution masks, one bit a cell, with what the filters ask of them.

    Attributes:
        bits: (N, L) uint64, row after row of cells, each filled up with zeros to whole bytes.
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
    packed = _pack_rows(inside, 0.0)
    high, low = (_count_cells(inside, cut) for cut in (stability_offset, -stability_offset))
    bits = _to_words(packed)
    return GridMasks(
        bits=bits,
        areas=_count_bits(bits),
        boxes_xyxy=_find_boxes(packed, columns),
        stability_scores=(high / np.maximum(low, 1)).astype(np.float32),
        hw=(rows, columns),
        cell_size=geometry.model_size / width,
        iou_predictions=None if ious is None else ious[:, 0].float().cpu().numpy(),
    )


def _pack_rows(mask_logits: Tensor, cut: float) -> NDArray[np.uint8]:
    """(N, h, w) logits -> (N, h, ceil(w / 8)) uint8, the cells above `cut` as bits."""
    if mask_logits.device.type == "cpu":  # torch compares cut-outs four times slower than NumPy
        return np.packbits(mask_logits.numpy() > cut, axis=2)
    return np.packbits((mask_logits > cut).cpu().numpy(), axis=2)


def _count_cells(mask_logits: Tensor, cut: float) -> IntArray:
    """(N, h, w) logits -> (N,) int64 cells above `cut`."""
    if mask_logits.device.type == "cpu":  # torch adds bools ten times slower
        return _count_bits(_to_words(_pack_rows(mask_logits, cut)))
    return (mask_logits > cut).sum(dim=(1, 2)).cpu().numpy().astype(np.int64)


def _to_words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(N, h, b) bytes -> (N, L) words of eight bytes."""
    num_bytes = packed.shape[1] * packed.shape[2]
    flat = packed.reshape(len(packed), num_bytes)
    return np.pad(flat, [(0, 0), (0, -num_bytes % 8)]).view(np.uint64)


def _count_bits(bits: NDArray[np.uint64]) -> IntArray:
    """(N, L) uint64 -> (N,) int64."""
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))


def _find_boxes(packed: NDArray[np.uint8], width: int) -> IntArray:
    """(N, h, b) bits -> (N, 4) int64 tight xyxy, exclusive right and bottom; zeros when empty."""
    lit_rows = np.asarray(packed.any(axis=2))
    lit_bytes = np.bitwise_or.reduce(packed, axis=1)
    lit_columns = np.unpackbits(lit_bytes, axis=1, count=width).astype(bool)
    (y0, y1), (x0, x1) = _find_extent(lit_rows), _find_extent(lit_columns)
    return np.stack([x0, y0, x1, y1], axis=1)


def _find_extent(lit: BoolArray) -> tuple[IntArray, IntArray]:
    """(N, n) bool -> first lit position and one behind the last, both (N,); zeros if none is."""
    is_any, from_end = lit.any(axis=1), lit[:, ::-1].argmax(axis=1)
    return lit.argmax(axis=1) * is_any, (lit.shape[1] - from_end) * is_any
