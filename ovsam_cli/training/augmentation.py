"""Augmented views of training images: scale jitter, crop, flip, and a camera's faults."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ovsam_cli.errors import ImageError
from ovsam_cli.images import read_image
from ovsam_cli.masks import decode_mask_columns, mask_areas, mask_boxes
from ovsam_cli.raster import RgbArray, resize_bilinear
from ovsam_cli.structures import BoolArray, FloatArray, IntArray, Rle


@dataclass(frozen=True, slots=True)
class AugmentationOptions:
    """How views differ from their images; the defaults are those published for COCO (spec 7.2).

    Attributes:
        model_size: S, side of the model frame and of the crop.
        scale_range: long side of the resized image, as a share of S.
        is_log_uniform: draw the logarithm of the scale, so that halving is as likely as doubling.
        flip_share: of views that are mirrored.
        min_area: smaller masks are dropped, in pixels of the model frame.
        min_visible_share: of an object that the crop must keep.
        max_objects: the first ones that stay in sight; None for all.
        has_camera_faults: exposure, colors, blur, noise, JPEG.
        is_exact: resize as OpenCV does, which published weights were trained with; else filter
            when shrinking, and decode big JPEG files at half their size: faster.
    """

    model_size: int = 1024
    scale_range: tuple[float, float] = (0.9, 2.0)
    is_log_uniform: bool = False
    flip_share: float = 0.5
    min_area: int = 32
    min_visible_share: float = 0.0
    max_objects: int | None = None
    has_camera_faults: bool = False
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the resized image a view shows.

    Attributes:
        original_hw, resized_hw: of the whole image before and after resizing.
        top, left: of the part, in resized pixels.
        input_hw: of the part; at most the model frame.
        is_flipped: mirrored after cutting.
    """

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    top: int
    left: int
    input_hw: tuple[int, int]
    is_flipped: bool


@dataclass(frozen=True, slots=True)
class CutMasks:
    """The n objects of a view.

    Attributes:
        masks: (n, S, S) bool, padded model frame.
        boxes_xyxy: (n, 4) float32, tight, exclusive right and bottom.
        rows: (n,) int64, which of the image's objects they are.
    """

    masks: BoolArray
    boxes_xyxy: FloatArray
    rows: IntArray


def sample_window(
    original_hw: tuple[int, int], options: AugmentationOptions, rng: np.random.Generator
) -> Window:
    """Large-scale jitter: a random scale, then a random crop no larger than the model frame."""
    low, high = options.scale_range
    if options.is_log_uniform:
        ratio = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    else:
        ratio = float(rng.uniform(low, high))
    scale = ratio * options.model_size / max(original_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in original_hw)
    part_h, part_w = min(height, options.model_size), min(width, options.model_size)
    return Window(
        original_hw=original_hw,
        resized_hw=(height, width),
        top=int(rng.integers(height - part_h + 1)),
        left=int(rng.integers(width - part_w + 1)),
        input_hw=(part_h, part_w),
        is_flipped=bool(rng.random() < options.flip_share),
    )


def cut_image(path: Path, window: Window, *, is_exact: bool) -> RgbArray:
    """Read the window's pixels: (h, w, 3) uint8, input frame, not padded.

    Raises:
        ImageError: the file cannot be decoded, or is not as large as its annotations say.
    """
    rgb = _cut_exactly(path, window) if is_exact else _cut_fast(path, window)
    return np.ascontiguousarray(rgb[:, ::-1]) if window.is_flipped else rgb


def _cut_exactly(path: Path, window: Window) -> RgbArray:
    # Annotations lie in the stored frame, so a rotation tag is not followed.
    rgb = read_image(path, apply_exif=False).rgb
    _check_size(path, rgb.shape[:2], window)
    resized = resize_bilinear(rgb, window.resized_hw)
    (height, width), top, left = window.input_hw, window.top, window.left
    return resized[top : top + height, left : left + width]


def _cut_fast(path: Path, window: Window) -> RgbArray:
    scale_y, scale_x = (
        resized / original
        for resized, original in zip(window.resized_hw, window.original_hw, strict=True)
    )
    try:
        with Image.open(path) as image:
            _check_size(path, (image.height, image.width), window)
            if image.format == "JPEG":
                # Only a decoding at least as large as needed; the shrinking is then exact to
                # less than a gray level on average.
                image.draft("RGB", (window.resized_hw[1], window.resized_hw[0]))
            shrunk_y, shrunk_x = (
                image.height / window.original_hw[0],
                image.width / window.original_hw[1],
            )
            height, width = window.input_hw
            box = (
                window.left / scale_x * shrunk_x,
                window.top / scale_y * shrunk_y,
                min((window.left + width) / scale_x * shrunk_x, image.width),
                min((window.top + height) / scale_y * shrunk_y, image.height),
            )
            part = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, box=box)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything
        read_image(path, apply_exif=False)  # says better what is wrong
        message = f"{path}: {error or type(error).__name__}"
        raise ImageError(message, reason="decode_error") from error
    return np.asarray(part)


def _check_size(path: Path, found_hw: tuple[int, ...], window: Window) -> None:
    if tuple(found_hw) != window.original_hw:
        raise ImageError(
            f"{path}: {found_hw[0]} x {found_hw[1]} pixels, but its annotations are for "
            f"{window.original_hw[0]} x {window.original_hw[1]} (height x width)",
            reason="wrong_size",
        )


def cut_masks(
    segmentations: Sequence[Rle], window: Window, options: AugmentationOptions
) -> CutMasks | None:
    """Bring an image's masks into a view; None when none of them stays in sight.

    Each pixel takes the value at its own center, so masks lie exactly on the resized picture.
    """
    ys, xs = _source_pixels(window)
    areas, boxes = mask_areas(segmentations), mask_boxes(segmentations)
    share = (window.resized_hw[0] * window.resized_hw[1]) / (
        window.original_hw[0] * window.original_hw[1]
    )
    kept: list[BoolArray] = []
    tight: list[FloatArray] = []
    rows: list[int] = []
    size = options.model_size
    for row, segmentation in enumerate(segmentations):
        if options.max_objects is not None and len(rows) == options.max_objects:
            break
        part, top, left = _cut_mask(segmentation, boxes[row], ys, xs)
        visible = int(np.count_nonzero(part))
        wanted = max(options.min_area, options.min_visible_share * areas[row] * share, 1)
        if visible < wanted:
            continue
        mask = np.zeros((size, size), bool)
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        kept.append(mask)
        tight.append(find_tight_box(part) + np.asarray((left, top, left, top), np.float32))
        rows.append(row)
    if not rows:
        return None
    return CutMasks(np.stack(kept), np.stack(tight), np.asarray(rows, np.int64))


def _source_pixels(window: Window) -> tuple[IntArray, IntArray]:
    """Which original row, and which column, each row and column of the view shows."""
    found = []
    for axis, start in enumerate((window.top, window.left)):
        places = np.arange(start, start + window.input_hw[axis]) + 0.5
        ratio = window.original_hw[axis] / window.resized_hw[axis]
        found.append((places * ratio).astype(np.int64).clip(0, window.original_hw[axis] - 1))
    ys, xs = found
    return ys, xs[::-1] if window.is_flipped else xs


def _cut_mask(
    segmentation: Rle, box: FloatArray, ys: IntArray, xs: IntArray
) -> tuple[BoolArray, int, int]:
    """The part of the view that an object's box covers, and the part's top and left."""
    in_y = np.flatnonzero((ys >= box[1]) & (ys < box[3]))
    in_x = np.flatnonzero((xs >= box[0]) & (xs < box[2]))
    if not in_y.size or not in_x.size:
        return np.zeros((0, 0), bool), 0, 0
    rows, columns = ys[in_y[0] : in_y[-1] + 1], xs[in_x[0] : in_x[-1] + 1]
    first = int(columns.min())
    mask = decode_mask_columns(segmentation, first, int(columns.max()) + 1)
    # Columns first: they are contiguous in a mask's runs.
    return mask.T[columns - first][:, rows].T, int(in_y[0]), int(in_x[0])


def find_tight_box(mask: BoolArray) -> FloatArray:
    """(4,) float32 xyxy box of an (H, W) mask that is not empty; exclusive right and bottom."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return np.asarray(edges, np.float32)


def jitter_colors(rgb: RgbArray, rng: np.random.Generator) -> RgbArray:
    """Exposure, contrast, saturation, white balance; at times blur, noise, JPEG or gray."""
    saturation = 0.0 if rng.random() < 0.05 else float(rng.uniform(0.5, 1.4))
    contrast = float(rng.uniform(0.7, 1.35))
    gains = rng.uniform(0.88, 1.12, 3) * rng.uniform(0.7, 1.3)
    middle = float(rgb[::8, ::8].mean())
    mixing = saturation * np.eye(3) + (1 - saturation) / 3  # of the three channels
    matrix = np.column_stack([contrast * mixing, np.full(3, (1 - contrast) * middle)])
    image = Image.fromarray(rgb).convert("RGB", tuple((gains[:, None] * matrix).ravel().tolist()))
    if rng.random() < 0.4:
        noise = rng.standard_normal(rgb.shape[:2], np.float32) * np.float32(rng.uniform(1, 9))
        noisy = np.asarray(image).astype(np.int16) + noise.astype(np.int16)[..., None]
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    if rng.random() < 0.3:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=int(rng.integers(35, 90)))
        image = Image.open(packed).convert("RGB")
    return np.asarray(image)


def to_pixels(
    rgb: RgbArray, model_size: int, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """(h, w, 3) uint8 -> (3, S, S) float32, normalized, then padded with zeros."""
    height, width = rgb.shape[:2]
    pixels = np.zeros((3, model_size, model_size), np.float32)
    levels = np.arange(256, dtype=np.float32)
    for channel in range(3):
        table = (levels - np.float32(mean[channel])) / np.float32(std[channel])
        pixels[channel, :height, :width] = table[rgb[..., channel]]
    return pixels
