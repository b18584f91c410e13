"""Instance data sets in COCO's JSON form: which images, which objects, which names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.masks import mask_areas
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.structures import Rle


@dataclass(frozen=True, slots=True)
class Instance:
    """One object: `category_id` as in the file, `segmentation` in the original frame."""

    annotation_id: int
    category_id: int
    segmentation: Rle
    area: int


@dataclass(frozen=True, slots=True)
class InstanceImage:
    """One image and its objects that are no crowds."""

    path: Path
    image_id: int
    original_hw: tuple[int, int]
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class InstanceDataset:
    """Images with objects.

    Attributes:
        source: the annotation file.
        images: in the file's order.
        category_names: name of each category id.
    """

    source: Path
    images: tuple[InstanceImage, ...]
    category_names: dict[int, str]


def read_instances(annotations: Path, image_folder: Path) -> InstanceDataset:
    """Read a COCO instances file; crowds and objects without pixels are left out.

    Args:
        annotations: JSON with `images`, `annotations` (run lengths, compressed or not) and
            `categories`.
        image_folder: where `file_name` is found.

    Raises:
        InputError: the file cannot be read, or is not of this form.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        names = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        sizes = {
            int(entry["id"]): (int(entry["height"]), int(entry["width"]))
            for entry in content["images"]
        }
        found: dict[int, list[Instance]] = {image_id: [] for image_id in sizes}
        for entry in content["annotations"]:
            if not entry.get("iscrowd", 0):
                image_id = int(entry["image_id"])
                found[image_id] += _read_instance(entry, sizes[image_id], names)
        images = tuple(
            InstanceImage(
                path=image_folder / entry["file_name"],
                image_id=int(entry["id"]),
                original_hw=sizes[int(entry["id"])],
                instances=tuple(found[int(entry["id"])]),
            )
            for entry in content["images"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{annotations}: not a COCO instances file ({type(error).__name__}: {error}); "
            "expected images, annotations with segmentations, and categories"
        ) from error
    return InstanceDataset(source=annotations, images=images, category_names=names)


def read_instance_folder(folder: Path) -> InstanceDataset:
    """Read `folder/instances.json` with its images in `folder/images`."""
    return read_instances(folder / "instances.json", folder / "images")


def _read_instance(
    entry: dict[str, object], original_hw: tuple[int, int], names: dict[int, str]
) -> list[Instance]:
    segmentation = read_segmentation(entry["segmentation"])
    if tuple(segmentation["size"]) != original_hw:
        raise ValueError(
            f"annotation {entry['id']}: mask {segmentation['size']}, image {original_hw}"
        )
    annotation_id, category_id = entry["id"], entry["category_id"]
    if not (isinstance(annotation_id, int) and isinstance(category_id, int)):
        raise ValueError(f"annotation {annotation_id!r}: ids are integers")
    if category_id not in names:
        raise ValueError(f"annotation {annotation_id}: no category {category_id}")
    area = int(mask_areas([segmentation])[0])
    if area == 0:
        return []
    return [Instance(annotation_id, category_id, segmentation, area)]
