"""Uploaded bytes to an image, within bounds, and the example images."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

from PIL import Image

from ovsam_cli.decoding import DecodedImage
from ovsam_cli.errors import ImageError
from ovsam_cli.images import read_image
from ovsam_cli.raster import RgbArray

MAX_UPLOAD_BYTES = 32 << 20
MAX_PIXELS = 40_000_000
MAX_PICTURE_SIDE = 1600  # of what the page shows
PICTURE_QUALITY = 90
MAX_NAME_LENGTH = 120
EXAMPLE_NAMES = ("cat", "coffee", "astronaut", "rocket", "scene_1", "scene_2")


def read_upload(data: bytes, name: str) -> DecodedImage:
    """Decode an uploaded image by the rules of every other image.

    Args:
        data: the file's bytes.
        name: for messages only; nothing of that name is opened.

    Raises:
        ImageError: no image, damaged, or of too many pixels (found before it is decoded).
    """
    with tempfile.TemporaryDirectory(prefix="ovsam-demo-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        try:
            return read_image(path, max_pixels=MAX_PIXELS)
        except ImageError as error:
            message = str(error).replace(str(path), name)
            raise ImageError(message, reason=error.reason) from error


def make_picture(rgb: RgbArray) -> bytes:
    """The image as a JPEG file for the page, upright and not too large.

    Args:
        rgb: (H, W, 3) uint8, original frame.
    """
    picture = Image.fromarray(rgb)
    picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=PICTURE_QUALITY)
    return buffer.getvalue()


def clean_name(name: str) -> str:
    """The last part of a file name, without what could harm a header, a page or a file system."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*')[-MAX_NAME_LENGTH:]
    return kept.strip(". ") or "image"


def read_examples() -> dict[str, bytes]:
    """The example images that are installed, by file name."""
    package = Path(__file__).parent.parent
    installed, checkout = package / "examples", package.parent / "examples"
    folder = installed if installed.is_dir() else checkout
    paths = [folder / f"{name}.jpg" for name in EXAMPLE_NAMES]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}
