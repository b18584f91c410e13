"""COCO's run-length strings, read and written without pycocotools.

A mask prompt comes from a user's file: pycocotools does not check that its runs fill the image,
so they are counted here before anything decodes them. (Its `decode` also relies on a protocol
that numpy 2 deprecates.) The string has one number after another,
five bits a character from the lowest, 0x20 set while more follow, the top bit of the last as the
sign, offset 48; from the fourth number on it is the difference to the one before the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovsam_cli.structures import IntArray, Rle

_OFFSET, _MORE, _SIGN = 48, 0x20, 0x10
_MAX_CHARACTERS = 10  # 49 bits, far more pixels than any image has


def read_segmentation(value: object) -> Rle:
    """Check a COCO RLE, compressed or not, and return it compressed.

    Raises:
        ValueError: not an RLE, or its runs do not fill its size.
    """
    if not isinstance(value, dict) or not {"size", "counts"} <= value.keys():
        raise ValueError('a mask is {"size": [height, width], "counts": ...}')
    size, counts = value["size"], value["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise ValueError(f"mask size {size!r} is not [height, width]")
    if isinstance(counts, str):
        runs = parse_counts(counts)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        counts = format_counts(counts)
        runs = parse_counts(counts)
    else:
        raise ValueError("mask counts are neither a string nor a list of integers")
    if runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1] or min(size) < 1:
        raise ValueError(f"mask runs do not fill its size {size[0]} x {size[1]}")
    return Rle(size=size, counts=counts)


def count_mask_pixels(segmentation: Rle) -> int:
    """Foreground pixels of a checked RLE: every second run."""
    return int(parse_counts(segmentation["counts"])[1::2].sum())


def parse_counts(text: str) -> IntArray:
    """(R,) int64 run lengths, background first.

    Raises:
        ValueError: a character outside the code, or a broken number.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _OFFSET
    except UnicodeEncodeError as error:
        raise ValueError("mask counts hold characters that no RLE has") from error
    if not codes.size:
        return codes
    if codes.min() < 0 or codes.max() >= 2 * _MORE:
        raise ValueError("mask counts hold characters that no RLE has")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if not ends.size or ends[-1] != len(codes) - 1 or lengths.max() > _MAX_CHARACTERS:
        raise ValueError("mask counts end within a number or hold one too large")
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs: IntArray = np.add.reduceat((codes & 0x1F) << shift, starts)
    runs -= np.where(codes[ends] & _SIGN, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def format_counts(runs: Sequence[int]) -> str:
    """The inverse of `parse_counts`."""
    characters: list[str] = []
    for index, run in enumerate(runs):
        value = run - (runs[index - 2] if index > 2 else 0)
        while True:
            code = value & 0x1F
            value >>= 5
            done = value == (-1 if code & _SIGN else 0)
            characters.append(chr(_OFFSET + (code if done else code | _MORE)))
            if done:
                break
    return "".join(characters)
