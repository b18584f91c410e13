"""The run lengths of Label Studio's brush labels.

A stream of bits, highest first: 32 bits with the number of values, 5 with the bits of a value less
1, four times 4 with the bits of a run length less 1. Then runs: a bit that says whether one value
is repeated, 2 bits that choose one of the four sizes, the length less 1 in that size, and the
value, or the values where they are not repeated. The values are the red, green, blue and alpha of
the pixels, row by row: all 255 inside the mask, all 0 outside. (The format is that of the
JavaScript package `@thi.ng/rle-pack`.)
"""

from __future__ import annotations

import numpy as np

from ovsam_cli.structures import BoolArray

VALUE_BITS, NUM_CHANNELS = 8, 4
LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 1 << LENGTH_BITS[-1]


def encode_brush_mask(mask: BoolArray) -> list[int]:
    """Encode an (H, W) bool mask as bytes of Label Studio's `rle`."""
    flat = mask.ravel()
    bits = [f"{flat.size * NUM_CHANNELS:032b}", f"{VALUE_BITS - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in LENGTH_BITS]
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * NUM_CHANNELS
    values = flat[starts].tolist() if flat.size else []
    for length, is_inside in zip(lengths.tolist(), values, strict=False):
        value = "11111111" if is_inside else "00000000"
        while length > 0:
            run = min(length, _LONGEST)
            bits.append(_encode_length(run) + value)
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _encode_length(run: int) -> str:
    """A repeated run: the smallest of the four sizes that holds it."""
    for index, size in enumerate(LENGTH_BITS):
        if run <= 1 << size:
            return f"1{index:02b}{run - 1:0{size}b}"
    raise AssertionError(f"a run of {run} values")
