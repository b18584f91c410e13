"""Small pictures of single objects, as data that stands in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from PIL import Image

from ovsam_cli import masks
from ovsam_cli.errors import ImageError
from ovsam_cli.images import read_image
from ovsam_cli.outputs.mask_paint import cut_shape, fill_opacity, object_color, paint_shape
from ovsam_cli.outputs.report_sample import Sample
from ovsam_cli.raster import RgbArray

LONG_SIDE = 320
JPEG_QUALITY = 80
SURROUNDINGS = 0.4  # of the object's longer side, shown on each side of it
MIN_SIDE = 64  # pixels of the original frame shown at least
LINE = 2
NUM_THREADS = 4
MAX_BYTES = 14_000_000  # of all pictures together, in base64


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG as base64 text, with its size in pixels."""

    data: str
    width: int
    height: int


def iter_thumbnails(samples: Sequence[Sample], *, apply_exif: bool) -> Iterator[Thumbnail | None]:
    """One picture a sample, in order; None where its image is gone, changed, or room has run out.

    Args:
        samples: of any images; each image is read once.
        apply_exif: as the run read them.
    """
    order = sorted(range(len(samples)), key=lambda index: samples[index].record.image_id)
    groups = [
        list(group) for _, group in groupby(order, key=lambda index: samples[index].record.image_id)
    ]
    found: dict[int, Thumbnail | None] = {}
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="thumbnail") as threads:
        draw = partial(_draw_image, apply_exif=apply_exif)
        of_images = threads.map(draw, [[samples[index] for index in group] for group in groups])
        for group, pictures in zip(groups, of_images, strict=True):
            found |= zip(group, pictures, strict=True)
    num_bytes = 0
    for index in range(len(samples)):
        picture = found[index]
        num_bytes += 0 if picture is None else len(picture.data)
        yield picture if num_bytes <= MAX_BYTES else None


def _draw_image(samples: Sequence[Sample], *, apply_exif: bool) -> list[Thumbnail | None]:
    """Pictures of objects of one image."""
    try:
        rgb = read_image(samples[0].record.path, apply_exif=apply_exif).rgb
    except ImageError:
        return [None] * len(samples)
    if rgb.shape[:2] != samples[0].original_hw:  # another image by now
        return [None] * len(samples)
    return [_encode(draw_object(rgb, sample)) for sample in samples]


def draw_object(rgb: RgbArray, sample: Sample) -> Image.Image:
    """Cut an object out with its surroundings and paint its mask.

    Args:
        rgb: (H, W, 3) uint8, the image in its original frame.
        sample: of this image.
    """
    x0, y0, x1, y1 = _choose_frame(sample)
    mask = masks.decode_mask_columns(sample.segmentation, x0, x1)[y0:y1]
    rle = masks.encode_mask(mask)
    picture = Image.fromarray(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
    scale = LONG_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture, np.float32).copy()
    shape = cut_shape(rle, masks.mask_boxes([rle])[0], size, LINE)
    # The object is in the middle already: a light fill shows what it is.
    opacity = fill_opacity(1.0)
    paint_shape(pixels, shape, object_color(sample.row), LINE, opacity)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _choose_frame(sample: Sample) -> tuple[int, int, int, int]:
    """The part of the image that is shown: x0, y0, x1, y1 in whole pixels."""
    low, high = sample.box_xyxy[:2], sample.box_xyxy[2:]
    reach = SURROUNDINGS * float((high - low).max())
    half = np.maximum((high - low) / 2 + reach, MIN_SIDE / 2)
    middle, size = (low + high) / 2, np.array(sample.original_hw[::-1])
    x0, y0 = np.floor((middle - half).clip(0)).astype(int).tolist()
    x1, y1 = np.ceil(np.minimum(middle + half, size)).astype(int).tolist()
    return x0, y0, x1, y1


def _encode(picture: Image.Image) -> Thumbnail:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(data, picture.width, picture.height)
