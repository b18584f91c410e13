"""Read images without surprises, and bring them into the model's frame.

Reading never guesses silently: whatever is not plain 8-bit RGB is converted by a named rule and
leaves a warning with the result; whatever cannot be decoded becomes one `ImageError`.
"""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ovsam_cli.decoding import DecodedImage, decode_image
from ovsam_cli.errors import ImageError
from ovsam_cli.raster import RgbArray, resize_bilinear
from ovsam_cli.remote import read_url, without_query
from ovsam_cli.structures import FloatArray, ImageGeometry

# Pillow itself refuses larger images, as likely decompression bombs (2 x Image.MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def read_image(
    path: Path | str,
    *,
    apply_exif: bool = True,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> DecodedImage:
    """Decode the first frame of an image file to upright 8-bit RGB.

    Deep and float gray images are scaled to 0..255 by a stated rule, transparency is laid on
    white, and both leave a warning, as do further frames and CMYK.

    Args:
        path: any file, or its URL; its content, not its suffix, decides the format.
        apply_exif: turn the image as its EXIF orientation says.
        max_pixels: refuse larger images before decoding them.
        allow_truncated: keep what could be decoded of a damaged file, with a warning.

    Raises:
        ImageError: with reason `not_found`, `not_a_file`, `permission`, `not_an_image`,
            `truncated`, `too_large`, `out_of_memory`, `decode_error`, or `unreachable` (a URL
            that several attempts did not bring).
    """
    try:
        with _open(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with _open_image(path, file) as image:
                _check_size(path, image, max_pixels)
                return decode_image(
                    image,
                    file,
                    sha256=digest,
                    apply_exif=apply_exif,
                    allow_truncated=allow_truncated,
                )
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything: struct.error, SyntaxError, ...
        raise _as_image_error(path, error) from error


def _open(path: Path | str) -> io.BufferedReader | io.BytesIO:
    if isinstance(path, str):
        return io.BytesIO(read_url(path))
    # A FIFO or device named x.jpg would block or act when opened, so look first.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError(f"{path}: not a regular file", reason="not_a_file")
    return path.open("rb")


def _open_image(path: Path | str, file: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:
        file.seek(0)
        message = f"{_name(path)}: {_describe_content(file.read(64))}"
        raise ImageError(message, reason="not_an_image") from error


def _check_size(path: Path | str, image: ImageFile.ImageFile, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels, the limit is {max_pixels}"
        raise ImageError(f"{_name(path)}: {size}", reason="too_large")


def _name(path: Path | str) -> str:
    return without_query(path) if isinstance(path, str) else str(path)


def _as_image_error(path: Path | str, error: Exception) -> ImageError:
    name, detail = _name(path), str(error) or type(error).__name__
    match error:
        case FileNotFoundError():
            return ImageError(f"{name}: no such file", reason="not_found")
        case PermissionError():
            return ImageError(f"{name}: not readable: permission denied", reason="permission")
        case ConnectionError():
            return ImageError(f"{name}: {detail}", reason="unreachable")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return ImageError(f"{name}: {detail}", reason="too_large")
        case MemoryError():
            return ImageError(f"{name}: not enough memory to decode it", reason="out_of_memory")
        case OSError() if "truncated" in detail or "broken data stream" in detail:
            return ImageError(f"{name}: {detail}", reason="truncated")
    return ImageError(f"{name}: {type(error).__name__}: {detail}", reason="decode_error")


def _describe_content(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return "HEIC is not supported; convert it to JPEG or PNG"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself; run: git lfs pull"
    return "not an image in a known format"


def preprocess(
    rgb: RgbArray, *, model_size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[FloatArray, ImageGeometry]:
    """Resize to a long side of `model_size`, normalize, and pad right and bottom with zeros.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        model_size: side of the padded frame in pixels.
        mean, std: per channel, in units of 0..255.

    Returns:
        (3, model_size, model_size) float32 in the padded model frame, and the image's frames.
    """
    resized, geometry = resize_to_input(rgb, model_size)
    height, width = geometry.input_hw
    pixels = np.zeros((3, model_size, model_size), np.float32)
    levels = np.arange(256, dtype=np.float32)
    for channel in range(3):
        table = (levels - np.float32(mean[channel])) / np.float32(std[channel])
        pixels[channel, :height, :width] = table[resized[:, :, channel]]
    return pixels, geometry


def resize_to_input(
    rgb: RgbArray, model_size: int, *, compiled: bool = False
) -> tuple[RgbArray, ImageGeometry]:
    """Resize to a long side of `model_size`, as the evaluation path does.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        model_size: side of the padded frame in pixels.
        compiled: use Numba, which must be installed; same result.

    Returns:
        (h, w, 3) uint8 in the input frame, and the image's frames.
    """
    height, width = rgb.shape[:2]
    scale = model_size / max(height, width)
    # Rounding as in the evaluation path (spec section 2); a 1 x 5000 image keeps one pixel.
    input_hw = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    geometry = ImageGeometry((height, width), input_hw, model_size)
    return resize_bilinear(rgb, input_hw, compiled=compiled), geometry
