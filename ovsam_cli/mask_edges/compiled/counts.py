"""COCO strings, areas and boxes of one mask after the other, as `mask_edges.counts`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.mask_edges.compiled.decorators import compiled
from ovsam_cli.mask_edges.counts import MaskCounts
from ovsam_cli.mask_edges.transitions import Transitions
from ovsam_cli.structures import FloatArray, IntArray

_LONGEST = 8  # characters of a run length, below 2 ** 39


def count_runs(transitions: Transitions, height: int) -> MaskCounts:
    """As `mask_edges.counts.count_runs`."""
    num_masks = transitions.num_masks
    text = np.empty(_LONGEST * (len(transitions.positions) + num_masks), np.uint8)
    ends, areas = np.zeros(num_masks, np.int64), np.zeros(num_masks, np.int64)
    boxes_xyxy = np.zeros((num_masks, 4), np.float32)
    length = _encode_all(
        transitions.positions, transitions.stride, height, (text, ends, areas, boxes_xyxy)
    )
    joined = text[:length].tobytes().decode("ascii")
    cuts = [0, *ends.tolist()]
    strings = tuple(joined[start:stop] for start, stop in pairwise(cuts))
    return MaskCounts(strings, areas, boxes_xyxy)


@compiled
def _write_counts(positions: IntArray, text: NDArray[np.uint8]) -> int:
    """COCO's code of the run lengths; returns its length."""
    length, start = 0, 0
    older, old, run = 0, 0, 0  # the last three run lengths
    for turn in range(len(positions)):
        older, old, run = old, run, positions[turn] - start
        start = positions[turn]
        value = run - older if turn > 2 else run
        is_done = False
        while not is_done:
            code = value & 0x1F
            value >>= 5
            is_done = value == (-1 if code & 0x10 else 0)
            text[length] = 48 + (code if is_done else code | 0x20)
            length += 1
    return length


@compiled
def _measure(positions: IntArray, height: int, box_xyxy: FloatArray) -> int:
    """Fill in the box of the mask, exclusive right and bottom; returns the area."""
    area, left, top, right, bottom = 0, positions[-1], height, 0, 0
    for turn in range(0, len(positions) - 1, 2):
        start, stop = positions[turn], positions[turn + 1]
        area += stop - start
        first_x, last_x = start // height, (stop - 1) // height
        left, right = min(left, first_x), max(right, last_x + 1)
        if first_x != last_x:
            top, bottom = 0, height
        else:
            top = min(top, start - first_x * height)
            bottom = max(bottom, stop - first_x * height)
    if area:
        box_xyxy[0], box_xyxy[1], box_xyxy[2], box_xyxy[3] = left, top, right, bottom
    return area


@compiled
def _encode_all(
    positions: IntArray,
    stride: int,
    height: int,
    out: tuple[NDArray[np.uint8], IntArray, IntArray, FloatArray],
) -> int:
    """Fill in text, ends, areas and boxes; returns the length of the text."""
    text, ends, areas, boxes_xyxy = out
    length, first = 0, 0
    for number in range(len(ends)):
        offset = number * stride
        last = first
        while last < len(positions) and positions[last] < offset + stride:
            last += 1
        own = np.empty(last - first + 1, np.int64)
        for turn in range(first, last):
            own[turn - first] = positions[turn] - offset
        own[last - first] = stride - 1
        first = last
        length += _write_counts(own, text[length:])
        ends[number] = length
        areas[number] = _measure(own, height, boxes_xyxy[number])
    return length
