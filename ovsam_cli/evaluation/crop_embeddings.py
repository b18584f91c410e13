"""Crops of an image, each encoded on its own: the baseline `image-crop` of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import FloatArray

# CLIP's own input, which its tower was trained on (Radford et al. 2021); 0..255 units.
CLIP_MEAN, CLIP_STD = (122.7709, 116.7460, 104.0937), (68.5005, 66.6322, 70.3232)
IMAGENET_SIDE = 224
CROPS_PER_BATCH = 8


def embed_crops(labeller: Labeller, rgb: RgbArray, boxes_xyxy: FloatArray) -> Tensor:
    """Cut boxes out, bring each to the square its tower was trained on, and encode it.

    A CLIP tower sees squares of its training size with CLIP's statistics, not the ImageNet ones of
    the segmenter; another trunk 224 pixels with the statistics it always has.

    Args:
        labeller: whose image tower is asked.
        rgb: (H, W, 3) uint8, original frame.
        boxes_xyxy: (B, 4) float, original frame; at least a pixel of each is taken.

    Returns:
        (B, D) float region embeddings, not normalized.
    """
    config = labeller.model.config
    is_clip = config.trunk == "clip-resnet"
    side = config.trunk_image_size if is_clip else IMAGENET_SIDE
    mean = CLIP_MEAN if is_clip else config.pixel_mean
    std = CLIP_STD if is_clip else config.pixel_std
    parts = []
    for start in range(0, len(boxes_xyxy), CROPS_PER_BATCH):
        crops = [cut_square(rgb, box, side) for box in boxes_xyxy[start : start + CROPS_PER_BATCH]]
        parts.append(_embed(labeller, normalize_crops(crops, mean, std)))
    return torch.cat(parts)


def normalize_crops(
    crops: Sequence[RgbArray], mean: Sequence[float], std: Sequence[float]
) -> FloatArray:
    """(C, 3, S, S) float32 of C crops (S, S, 3) uint8."""
    array = np.stack(crops).astype(np.float32)
    normalized = (array - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    pixels: FloatArray = np.ascontiguousarray(normalized.transpose(0, 3, 1, 2), np.float32)
    return pixels


def _embed(labeller: Labeller, pixels: FloatArray) -> Tensor:
    """(C, 3, S, S) -> (C, D): each crop's whole map pooled as one region."""
    trunk = labeller.model.backbone
    side = pixels.shape[-1]
    with labeller.autocast():
        last_map = trunk(torch.from_numpy(pixels).to(labeller.device))[-1].float()
        boxes = last_map.new_tensor([[0, 0, side, side]]).repeat(len(pixels), 1)
        index = torch.arange(len(pixels), device=last_map.device)
        return trunk.embed_regions(last_map, boxes, index)


def cut_square(rgb: RgbArray, box_xyxy: FloatArray, side: int) -> RgbArray:
    """The box's pixels as a square, whole but stretched.

    Resized as CLIP's own preprocessing does, bicubic with antialiasing by Pillow; that one cuts the
    middle square out of a long picture, which here would lose the ends of a long object.

    Args:
        rgb: (H, W, 3) uint8, original frame.
        box_xyxy: (4,) float, original frame; at least a pixel of it is taken.
        side: of the square in pixels.

    Returns:
        (side, side, 3) uint8.
    """
    height, width = rgb.shape[:2]
    left, top = np.floor(box_xyxy[:2]).astype(int).tolist()
    right, bottom = np.ceil(box_xyxy[2:]).astype(int).tolist()
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
    cut = Image.fromarray(np.ascontiguousarray(rgb[top:bottom, left:right]))
    square: RgbArray = np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))
    return square
