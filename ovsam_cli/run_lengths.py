"""COCO's run-length strings, read and written without pycocotools.

A mask prompt comes from a user's file: pycocotools does not check that its runs fill the image,
so they are counted here before anything decodes them. The string has one number after another,
five bits a character from the lowest, 0x20 set while more follow, the top bit of the last as the
sign, offset 48; from the fourth number on it is the difference to the one before the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovsam_cli.structures import Rle

_OFFSET, _MORE, _SIGN = 48, 0x20, 0x10


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
        runs, counts = counts, format_counts(counts)
    else:
        raise ValueError("mask counts are neither a string nor a list of integers")
    if min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(f"mask runs do not fill its size {size[0]} x {size[1]}")
    return Rle(size=size, counts=counts)


def count_mask_pixels(segmentation: Rle) -> int:
    """Foreground pixels of a checked RLE: every second run."""
    return sum(parse_counts(segmentation["counts"])[1::2])


def parse_counts(text: str) -> list[int]:
    """Run lengths, background first.

    Raises:
        ValueError: a character outside the code, or an unfinished number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _OFFSET
        if not 0 <= code < 2 * _MORE:
            raise ValueError(f"mask counts hold {character!r}, which no RLE has")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("mask counts end within a number")
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
