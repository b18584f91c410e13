"""Augmented views of training scenes: crop, flip, scale jitter, and a camera's faults."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ovsam_cli.evaluation.datasets import InstanceDataset, InstanceImage
from ovsam_cli.masks import decode_mask
from ovsam_cli.structures import BoolArray

MIN_AREA = 32  # pixels of the model frame; smaller masks are dropped (spec section 7.2)
MIN_VISIBLE_SHARE = 0.2  # of an object that the crop must keep
SCALE_RANGE = (0.6, 1.9)  # of the size at which the long side fills the model frame
UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """One augmented image.

    Attributes:
        rgb: (h, w, 3) uint8, at most the model frame, input frame without padding.
        masks: (n, S, S) bool, padded model frame.
        names: (n,) of the objects.
    """

    rgb: UInt8Array
    masks: BoolArray
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the image a view shows: left, top, right, bottom, in original pixels."""

    box: tuple[float, float, float, float]
    input_hw: tuple[int, int]
    is_flipped: bool


def sample_view(
    dataset: InstanceDataset, image: InstanceImage, model_size: int, rng: np.random.Generator
) -> View | None:
    """A random view of an image, or None when no object of it stays in sight.

    Args:
        dataset: where the image is from; gives the names.
        image: with its objects.
        model_size: S, side of the model frame.
        rng: all of the view's randomness.
    """
    window = sample_window(image.original_hw, model_size, rng)
    kept, masks = [], []
    for instance in image.instances:
        mask = cut_mask(decode_mask(instance.segmentation), window, model_size)
        if mask is not None:
            masks.append(mask)
            kept.append(dataset.category_names[instance.category_id])
    if not masks:
        return None
    with Image.open(image.path) as opened:
        rgb = cut_image(opened.convert("RGB"), window)
    return View(jitter_colors(rgb, rng), np.stack(masks), tuple(kept))


def sample_window(
    original_hw: tuple[int, int], model_size: int, rng: np.random.Generator
) -> Window:
    """Large-scale jitter: a log-uniform scale, a random crop no larger than the model frame."""
    height, width = original_hw
    ratio = float(np.exp(rng.uniform(*np.log(SCALE_RANGE))))
    scale = ratio * model_size / max(height, width)
    part_w, part_h = min(width, model_size / scale), min(height, model_size / scale)
    left, top = rng.uniform(0, width - part_w), rng.uniform(0, height - part_h)
    input_hw = (
        min(model_size, max(1, round(part_h * scale))),
        min(model_size, max(1, round(part_w * scale))),
    )
    return Window((left, top, left + part_w, top + part_h), input_hw, bool(rng.random() < 0.5))


def cut_image(image: Image.Image, window: Window) -> UInt8Array:
    """The window's pixels, (h, w, 3) uint8, input frame."""
    height, width = window.input_hw
    part = image.resize((width, height), Image.Resampling.BILINEAR, box=window.box)
    if window.is_flipped:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part)


def cut_mask(mask: BoolArray, window: Window, model_size: int) -> BoolArray | None:
    """(H, W) mask -> (S, S) in the padded model frame, or None when too little is left."""
    left, top, right, bottom = (round(edge) for edge in window.box)
    total = int(mask.sum())
    visible = int(mask[top:bottom, left:right].sum())
    height, width = window.input_hw
    scale2 = height * width / max((right - left) * (bottom - top), 1)
    if visible < MIN_VISIBLE_SHARE * total or visible * scale2 < MIN_AREA:
        return None
    gray = Image.fromarray(mask.astype(np.uint8) * 255)
    part = gray.resize((width, height), Image.Resampling.BILINEAR, box=window.box)
    if window.is_flipped:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    result: BoolArray = np.zeros((model_size, model_size), bool)
    result[:height, :width] = np.asarray(part) >= 128
    return result if int(result.sum()) >= MIN_AREA else None


def jitter_colors(rgb: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """Exposure, contrast, saturation, white balance; at times blur, noise, JPEG or gray."""
    values = rgb.astype(np.float32)
    gray = values.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.5, 1.4)
    values = gray + (values - gray) * np.float32(saturation)
    middle = np.float32(values.mean())
    values = middle + (values - middle) * np.float32(rng.uniform(0.7, 1.35))
    values *= rng.uniform(0.88, 1.12, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.3))
    if rng.random() < 0.4:
        noise = rng.standard_normal((*values.shape[:2], 1), np.float32)
        values += noise * np.float32(rng.uniform(1, 9))
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    if rng.random() < 0.3:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=int(rng.integers(35, 90)))
        image = Image.open(packed).convert("RGB")
    return np.asarray(image)


def to_pixels(
    rgb: UInt8Array, model_size: int, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """(h, w, 3) uint8 -> (3, S, S) float32, normalized, then padded with zeros."""
    pixels = np.zeros((3, model_size, model_size), np.float32)
    normalized = (rgb - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    pixels[:, : rgb.shape[0], : rgb.shape[1]] = normalized.transpose(2, 0, 1)
    return pixels
