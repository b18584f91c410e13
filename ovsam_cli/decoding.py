"""An opened image file -> upright 8-bit RGB: Pillow, and a faster JPEG decoder where it is there.

simplejpeg (extra `fast`) runs the same libjpeg-turbo arithmetic as Pillow without its row by row
copying, so the pixels are the same. It sees only files whose kind the tests compare; whatever it
does not take without the least complaint goes to Pillow, whose word on damaged files counts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageFile

from ovsam_cli.raster import RgbArray, scale_deep_gray

EXIF_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = range(2, 9)  # 1 is upright
_BACK = {6: 8, 8: 6}  # all other orientations undo themselves


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image.

    Attributes:
        rgb: (H, W, 3) uint8, read-only, original frame.
        exif_orientation: the file's tag 1..8, also when it was not applied; 1 when absent.
        num_frames: frames or pages in the file; `rgb` is the first.
        warnings: what was converted or left out, in words.
        sha256: of the file's bytes, hexadecimal.
    """

    rgb: RgbArray
    exif_orientation: int
    num_frames: int
    warnings: tuple[str, ...]
    sha256: str


class _DecodeJpeg(Protocol):
    """`simplejpeg.decode_jpeg`, as far as it is used."""

    def __call__(self, data: bytes, colorspace: str) -> RgbArray: ...


def decode_image(
    image: ImageFile.ImageFile,
    file: BinaryIO,
    *,
    sha256: str,
    apply_exif: bool,
    allow_truncated: bool,
) -> DecodedImage:
    """Decode the first frame of an opened image.

    Args:
        image: opened by Pillow, not loaded yet.
        file: what it was opened from.
        sha256: of the file's bytes.
        apply_exif: turn the image as its EXIF orientation says.
        allow_truncated: keep what could be decoded of a damaged file, with a warning.

    Raises:
        OSError: the file is damaged. Decoders raise other errors too.
    """
    notes: list[str] = []
    # Pillow turns TIFF files itself while loading and then forgets the tag. PNG tags may follow
    # the pixels, so asking before loading is for TIFF only.
    before = _read_orientation(image) if image.format == "TIFF" else 1
    rgb = _decode_jpeg(image, file)
    if rgb is None:
        rgb = _decode_with_pillow(image, allow_truncated, notes)
    after = _read_orientation(image)
    turn = after if apply_exif else _BACK.get(before, before) if before != after else 1
    rgb = _turn(rgb, turn)
    rgb.flags.writeable = False
    num_frames = _count_frames(image, notes)
    return DecodedImage(rgb, after if after != 1 else before, num_frames, tuple(notes), sha256)


def _decode_with_pillow(
    image: ImageFile.ImageFile, allow_truncated: bool, notes: list[str]
) -> RgbArray:
    try:
        image.load()
    except OSError as error:
        if not allow_truncated:
            raise
        image.tile = []  # the rows decoded so far stay; Pillow now takes the image for loaded
        notes.append(f"the file is damaged ({error}); missing parts are blank")
    return np.asarray(_to_rgb(image, notes))


def _decode_jpeg(image: ImageFile.ImageFile, file: BinaryIO) -> RgbArray | None:
    """The same pixels as Pillow's, or None for what only Pillow should decode."""
    # CMYK has a rule of its own below. Files of several pictures (MPO) are another format.
    decode = _find_decoder()
    if decode is None or image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    try:
        rgb = decode(data, "RGB")
    except ValueError:  # also for what libjpeg only warns of
        return None
    return rgb if rgb.shape == (image.height, image.width, 3) else None


@cache
def _find_decoder() -> _DecodeJpeg | None:
    """simplejpeg's decoder, or None where it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    found: _DecodeJpeg = decode_jpeg
    return found


def _turn(rgb: RgbArray, orientation: int) -> RgbArray:
    """Undo an EXIF orientation 2..8; any other value changes nothing."""
    turned = {
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.swapaxes(0, 1),
        6: np.rot90(rgb, 3),
        7: rgb[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(rgb),
    }
    return np.ascontiguousarray(turned.get(orientation, rgb))


def _read_orientation(image: Image.Image) -> int:
    found = image.getexif().get(EXIF_ORIENTATION_TAG, 1)
    return found if found in _ORIENTATIONS else 1


def _count_frames(image: Image.Image, notes: list[str]) -> int:
    """Called after conversion, because counting moves the file to other frames."""
    if image.format == "MPO":
        return 1  # a photo with its embedded previews
    try:
        num_frames = int(getattr(image, "n_frames", 1))
    except (OSError, EOFError, ValueError, SyntaxError, struct.error):
        notes.append("later frames are damaged; the first is used")
        return 1
    if num_frames > 1:
        notes.append(f"{num_frames} frames or pages; the first is used")
    return num_frames


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        gray, note = scale_deep_gray(np.asarray(image))
        notes.append(note)
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if np.asarray(rgba.getchannel("A")).min() < 255:
            notes.append("transparency laid on white")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode == "CMYK":
        notes.append("CMYK converted without its color profile")
    return image.convert("RGB")
