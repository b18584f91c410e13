"""Read the uncompressed OpenEXR files that the renderer writes: image and object numbers.

Blender 5 writes one part a pass; a loaded Blender and the OpenEXR bindings do not live well in one
process, and an uncompressed scan-line file is simple. Layout: "OpenEXR File Layout",
https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovsam_cli.errors import InputError

MAGIC = 20000630
_MULTI_PART_FLAG = 0x1000
Dtype = np.dtype[np.uint32] | np.dtype[np.float16] | np.dtype[np.float32]
_DTYPES: dict[int, Dtype] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    channels: tuple[tuple[str, Dtype], ...]  # in file order, which is alphabetical
    width: int
    height: int
    top: int
    compression: int


def read_channels(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Every channel of an uncompressed EXR file.

    Returns:
        `part name + "." + channel name` (the channel's own name in a single-part file) to an
        (H, W) float32 array, row 0 at the top.

    Raises:
        InputError: not an EXR file, or compressed.
    """
    data = path.read_bytes()
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != MAGIC:
        raise InputError(f"{path}: not an OpenEXR file; render the scene again")
    is_multi_part = bool(struct.unpack_from("<i", data, 4)[0] & _MULTI_PART_FLAG)
    parts, offset = _read_headers(data, is_multi_part)
    if any(part.compression != 0 for part in parts):
        raise InputError(f"{path}: compressed EXR; write it with compression NONE")
    channels: dict[str, npt.NDArray[np.float32]] = {}
    for part in parts:
        line_offsets = struct.unpack_from(f"<{part.height}Q", data, offset)
        offset += 8 * part.height
        channels.update(_read_part(data, part, line_offsets, 4 if is_multi_part else 0))
    return channels


def _read_headers(data: bytes, is_multi_part: bool) -> tuple[list[_Part], int]:
    parts: list[_Part] = []
    offset = 8
    while data[offset] != 0:
        attributes: dict[str, bytes] = {}
        while data[offset] != 0:
            name, offset = _read_string(data, offset)
            _, offset = _read_string(data, offset)
            (size,) = struct.unpack_from("<i", data, offset)
            attributes[name] = data[offset + 4 : offset + 4 + size]
            offset += 4 + size
        offset += 1
        parts.append(_parse_part(attributes))
        if not is_multi_part:
            return parts, offset
    return parts, offset + 1


def _parse_part(attributes: dict[str, bytes]) -> _Part:
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    channels: list[tuple[str, Dtype]] = []
    listing, offset = attributes["channels"], 0
    while listing[offset] != 0:
        name, offset = _read_string(listing, offset)
        channels.append((name, _DTYPES[struct.unpack_from("<i", listing, offset)[0]]))
        offset += 16
    return _Part(
        name=attributes.get("name", b"").decode(),
        channels=tuple(channels),
        width=right - left + 1,
        height=bottom - top + 1,
        top=top,
        compression=attributes["compression"][0],
    )


def _read_part(
    data: bytes, part: _Part, line_offsets: tuple[int, ...], prefix: int
) -> dict[str, npt.NDArray[np.float32]]:
    found = {
        name: np.empty((part.height, part.width), dtype=np.float32) for name, _ in part.channels
    }
    for line_offset in line_offsets:
        (row,) = struct.unpack_from("<i", data, line_offset + prefix)
        at = line_offset + prefix + 8
        for name, dtype in part.channels:
            found[name][row - part.top] = np.frombuffer(data, dtype, part.width, at)
            at += dtype.itemsize * part.width
    label = f"{part.name}." if part.name else ""
    return {label + name: array for name, array in found.items()}


def _read_string(data: bytes, offset: int) -> tuple[str, int]:
    end = data.index(b"\0", offset)
    return data[offset:end].decode(), end + 1
