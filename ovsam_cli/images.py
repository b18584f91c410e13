"""Find images, read them without surprises, and bring them into the model's frame.

Reading never guesses silently: whatever is not plain 8-bit RGB is converted by a named rule and
leaves a warning with the result; whatever cannot be decoded becomes one `ImageError`.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ovsam_cli.decoding import DecodedImage, decode_image
from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.raster import RgbArray, resize_bilinear
from ovsam_cli.structures import FloatArray, ImageGeometry, ImageRecord

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .avif .jp2 .j2k .jpx .tif .tiff .gif .bmp .dib "
    ".ppm .pgm .pbm .pnm .tga".split()
)
# Pillow itself refuses larger images, as likely decompression bombs (2 x Image.MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def find_images(arguments: Sequence[str]) -> list[ImageRecord]:
    """List the images that files, folders, glob patterns and `@list.txt` files stand for.

    Folders are searched recursively for known image suffixes; hidden entries and linked folders
    are left out. A file named directly is taken whatever its suffix. A list file has one path a
    line, relative to its own folder. The same file named twice is listed once.

    Returns:
        Records sorted by `file_name`, the POSIX path relative to the folder given, or to the
        common parent of several arguments. Undecodable bytes stay as surrogate escapes.

    Raises:
        InputError: a path does not exist or cannot be read, or no image was found.
    """
    given_by_real: dict[str, str] = {}
    bases: list[str] = []
    walked: set[tuple[int, int]] = set()
    for argument in arguments:
        for path in _expand(argument):
            if os.path.isdir(path):
                base = os.path.realpath(path)
                for relative in _walk(base, "", walked):
                    given_by_real.setdefault(f"{base}/{relative}", os.path.join(path, relative))
            else:
                base = os.path.realpath(os.path.dirname(path) or ".")
                given_by_real.setdefault(f"{base}/{os.path.basename(path)}", path)
            bases.append(base)
    if not given_by_real:
        raise InputError(
            f"no image found in {', '.join(arguments) or 'nothing'}; looked for "
            f"{' '.join(sorted(IMAGE_SUFFIXES))} (linked and hidden folders are not searched)"
        )
    root_length = len(os.path.commonpath(bases).rstrip("/"))
    named = sorted((real[root_length:].lstrip("/"), path) for real, path in given_by_real.items())
    return [
        ImageRecord(path=Path(path), file_name=name.replace(os.sep, "/"), image_id=number)
        for number, (name, path) in enumerate(named, start=1)
    ]


def _expand(argument: str) -> Iterator[str]:
    if os.path.exists(argument):
        yield argument
    elif argument.startswith("@"):
        yield from _read_list(argument[1:])
    else:
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise InputError(f"{argument}: no such file or folder, and no file matches the pattern")
        yield from (path for path in matches if os.path.isdir(path) or _has_image_suffix(path))


def _read_list(path: str) -> Iterator[str]:
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot read the list of images: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = os.path.join(os.path.dirname(path), os.fsdecode(line.strip()))
        if not os.path.lexists(entry):
            raise InputError(f"{path}:{number}: {entry} does not exist")
        yield entry


def _walk(base: str, relative: str, walked: set[tuple[int, int]]) -> Iterator[str]:
    """Yield image paths below `base`, relative to it; each folder (device, inode) only once."""
    folder = os.path.join(base, relative)
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot list the folder: {error.strerror}") from error
    if (status.st_dev, status.st_ino) in walked:
        return
    walked.add((status.st_dev, status.st_ino))
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(base, name, walked)
        elif _has_image_suffix(entry.name) and not os.path.isdir(entry.path):
            yield name


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def read_image(
    path: Path,
    *,
    apply_exif: bool = True,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> DecodedImage:
    """Decode the first frame of an image file to upright 8-bit RGB.

    Deep and float gray images are scaled to 0..255 by a stated rule, transparency is laid on
    white, and both leave a warning, as do further frames and CMYK.

    Args:
        path: any file; its content, not its suffix, decides the format.
        apply_exif: turn the image as its EXIF orientation says.
        max_pixels: refuse larger images before decoding them.
        allow_truncated: keep what could be decoded of a damaged file, with a warning.

    Raises:
        ImageError: with reason `not_found`, `not_a_file`, `permission`, `not_an_image`,
            `truncated`, `too_large`, `out_of_memory` or `decode_error`.
    """
    try:
        # A FIFO or device named x.jpg would block or act when opened, so look first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{path}: not a regular file", reason="not_a_file")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with Image.open(file) as image:
                if (width := image.width) * (height := image.height) > max_pixels:
                    message = f"{path}: {width} x {height} pixels, the limit is {max_pixels}"
                    raise ImageError(message, reason="too_large")
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


def _as_image_error(path: Path, error: Exception) -> ImageError:
    detail = str(error) or type(error).__name__
    match error:
        case FileNotFoundError():
            return ImageError(f"{path}: no such file", reason="not_found")
        case PermissionError():
            return ImageError(f"{path}: not readable: permission denied", reason="permission")
        case UnidentifiedImageError():
            return ImageError(f"{path}: {_describe_content(path)}", reason="not_an_image")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return ImageError(f"{path}: {detail}", reason="too_large")
        case MemoryError():
            return ImageError(f"{path}: not enough memory to decode it", reason="out_of_memory")
        case OSError() if "truncated" in detail or "broken data stream" in detail:
            return ImageError(f"{path}: {detail}", reason="truncated")
    return ImageError(f"{path}: {type(error).__name__}: {detail}", reason="decode_error")


def _describe_content(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
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
