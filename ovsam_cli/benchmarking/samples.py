"""Made-up photos, boxes and masks; the same seed gives the same ones everywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.structures import FloatArray, Prompts

JPEG_QUALITY = 90


def draw_photo(hw: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: a few soft blobs of color with grain, which JPEG takes as a photo."""
    rng = np.random.default_rng(seed)
    height, width = hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    photo = np.full((height, width, 3), rng.uniform(60, 190, 3), np.float32)
    for _ in range(8):
        center_x, center_y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.08, 0.3) * min(hw)
        inside = np.hypot(x - center_x, y - center_y) < radius
        photo[inside] = rng.uniform(0, 255, 3)
    photo += rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    return photo.clip(0, 255).astype(np.uint8)


def write_photos(
    folder: Path, *, count: int, hw: tuple[int, int], num_different: int = 8, seed: int = 0
) -> Path:
    """Write `00000.jpg` and so on; beyond `num_different` they are links to the first ones.

    Returns:
        The folder, made where missing.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if number < num_different:
            photo = Image.fromarray(draw_photo(hw, seed=seed + number))
            photo.save(path, quality=JPEG_QUALITY)
        else:
            os.link(folder / f"{number % num_different:05d}.jpg", path)
    return folder


def draw_boxes(hw: tuple[int, int], *, count: int, seed: int) -> FloatArray:
    """(B, 4) float32 xyxy of a tenth to a half of each side, inside the image."""
    rng = np.random.default_rng(seed)
    height, width = hw
    sides = rng.uniform(0.1, 0.5, (count, 2)) * (width, height)
    corners = rng.uniform(0, 1, (count, 2)) * ((width, height) - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def make_box_prompts(boxes_xyxy: FloatArray) -> Prompts:
    """(B, 4) boxes as prompts of one image."""
    count = len(boxes_xyxy)
    return Prompts(
        prompt_ids=tuple(range(1, count + 1)),
        image_index=np.zeros(count, np.int64),
        point_coords=np.empty((count, 0, 2), np.float32),
        point_labels=np.empty((count, 0), np.int64),
        boxes_xyxy=boxes_xyxy,
        masks=(None,) * count,
        prompt_scores=np.full(count, np.nan, np.float32),
    )


def write_box_prompts(
    path: Path, photos: Path, *, hw: tuple[int, int], boxes_per_image: int, seed: int = 0
) -> Path:
    """Write our prompt file with boxes for all photos of a folder."""
    rows = [
        {
            "file_name": photo.name,
            "boxes": draw_boxes(hw, count=boxes_per_image, seed=seed + place).tolist(),
        }
        for place, photo in enumerate(sorted(photos.glob("*.jpg")))
    ]
    path.write_text(json.dumps({"format": "ovsam-prompts", "images": rows}), encoding="utf-8")
    return path


def draw_mask_logits(*, count: int, num_objects: int, side: int, seed: int) -> FloatArray:
    """(N, side, side) float32 logits: blobs with rough outlines, several almost alike an object.

    All lie in the upper two thirds, which an image of 4 x 3 fills.

    Args:
        count: N.
        num_objects: different blobs; each has N / num_objects near copies.
        side: cells.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    centers = rng.uniform((0.1, 0.1), (0.9, 0.65), (num_objects, 2)) * side  # x, y
    radii = rng.uniform(0.06, 0.2, num_objects) * side
    phases = rng.uniform(0, 2 * np.pi, (num_objects, 3))
    logits = np.empty((count, side, side), np.float32)
    for number in range(count):
        which = number % num_objects
        dx, dy = x - centers[which, 0], y - centers[which, 1]
        angle = np.arctan2(dy, dx)
        waves = sum(
            np.sin((k + 2) * angle + phases[which, k] + rng.normal(0, 0.1)) for k in range(3)
        )
        edge = radii[which] * (1 + 0.1 * waves + rng.normal(0, 0.02))
        logits[number] = (edge - np.hypot(dx, dy)) * rng.uniform(2, 4)  # steep, as trained masks
    return logits
