"""Small annotated scenes: in memory, and as folders in COCO's form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovsam_cli.evaluation.datasets import InstanceDataset, read_instance_folder
from ovsam_cli.masks import encode_mask

SHAPES = ("disc", "bar")


def draw_shape(shape: str, height: int, width: int, center_yx: tuple[int, int]) -> np.ndarray:
    """(height, width) bool disc of radius 20, or bar of 50 x 12, cut by the frame."""
    y, x = np.mgrid[:height, :width]
    y, x = y - center_yx[0], x - center_yx[1]
    if shape == "disc":
        disc: np.ndarray = y**2 + x**2 <= 400
        return disc
    bar: np.ndarray = (abs(y) < 6) & (abs(x) < 25)
    return bar


def write_scenes(
    folder: Path, num_images: int = 3, names: Sequence[str] = SHAPES, size: int = 128
) -> InstanceDataset:
    """A disc and a bar an image, white on noise, in `folder/instances.json` and `folder/images`."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(7)
    images, annotations = [], []
    for number in range(1, num_images + 1):
        pixels = rng.integers(0, 90, (size, size + 32, 3), np.uint8)
        for row, shape in enumerate(SHAPES):
            center = (35 + 60 * row, int(rng.integers(40, size - 20)))
            mask = draw_shape(shape, size, size + 32, center)
            pixels[mask] = 255
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": row + 1,
                    "segmentation": encode_mask(mask),
                    "iscrowd": 0,
                }
            )
        file_name = f"{number}.png"
        Image.fromarray(pixels).save(folder / "images" / file_name)
        entry = {"id": number, "file_name": file_name, "height": size, "width": size + 32}
        images.append(entry)
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return read_instance_folder(folder)
