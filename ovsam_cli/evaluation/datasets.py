"""Instance data sets in COCO's JSON form: which images, which objects, which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.evaluation.coco_entries import (
    ImageEntry,
    iter_annotations,
    open_coco,
    read_tables,
)
from ovsam_cli.evaluation.dataset_places import check_paths
from ovsam_cli.masks import mask_areas
from ovsam_cli.outputs.coco_values import read_box, read_integer, read_mask
from ovsam_cli.structures import Rle

LVIS_FOLDERS = ("train2017", "val2017")
WHAT, EXAMPLE = "COCO instances file", "annotations/instances_train2017.json"


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in the original frame: `category_id` and `bbox` (x y w h) as in the file."""

    annotation_id: int
    category_id: int
    segmentation: Rle
    area: int
    bbox: tuple[float, float, float, float] | None = None


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
    """Read a COCO or LVIS instances file; crowds and objects without pixels are left out.

    Entries are read one by one; of a large file the objects alone are kept.

    Args:
        annotations: JSON with `images`, `annotations` (polygons, or run lengths, compressed or
            not) and `categories`.
        image_folder: where `file_name` is found. LVIS has `coco_url` instead: its images are in
            the folders `train2017` and `val2017` there, or in `image_folder` if it is one of them.

    Raises:
        InputError: the file cannot be read, or is not of this form.
    """
    with open_coco(annotations, WHAT, EXAMPLE) as stream:
        tables = read_tables(stream)
        names = tables.category_names
        images = {image.image_id: image for image in tables.images}
        found: dict[int, list[Instance]] = {image_id: [] for image_id in images}
        for entry in iter_annotations(stream):
            if not entry.get("iscrowd", 0):
                image = images[read_integer(entry, "image_id")]
                instance = read_instance(entry, image.original_hw, names)
                found[image.image_id] += [] if instance is None else [instance]
    return InstanceDataset(
        source=annotations,
        images=tuple(
            InstanceImage(
                path=find_image(image_folder, image),
                image_id=image.image_id,
                original_hw=image.original_hw,
                instances=tuple(found[image.image_id]),
            )
            for image in tables.images
        ),
        category_names=names,
    )


def read_instance_folder(folder: Path) -> InstanceDataset:
    """Read `folder/instances.json` with its images in `folder/images`."""
    return read_instances(folder / "instances.json", folder / "images")


def check_image_files(dataset: InstanceDataset) -> None:
    """Make sure that every image with objects is there.

    Raises:
        InputError: naming how many are missing, the first one and where it was looked for.
    """
    paths = [image.path for image in dataset.images if image.instances]
    check_paths(paths, str(dataset.source), "the folder they are in")


def find_image(image_folder: Path, image: ImageEntry) -> Path:
    """Where an image of an annotation file is expected."""
    file = image.file
    if not image.is_lvis:
        return image_folder / file
    split = file.parts[0]  # `coco_url` names train2017 or val2017, which are beside each other
    if image_folder.name == split:
        return image_folder / file.name
    beside = image_folder.parent / split
    if image_folder.name in LVIS_FOLDERS and beside.is_dir():
        return beside / file.name
    return image_folder / file


def read_instance(
    entry: Mapping[str, object], original_hw: tuple[int, int], names: Mapping[int, str]
) -> Instance | None:
    """The object of an entry of `annotations`, or None for a mask without pixels.

    Raises:
        ValueError, KeyError, TypeError: the entry is malformed.
    """
    annotation_id, category_id = read_integer(entry, "id"), read_integer(entry, "category_id")
    segmentation = read_mask(entry, original_hw)
    if category_id not in names:
        raise ValueError(f"annotation {annotation_id}: no category {category_id}")
    area = int(mask_areas([segmentation])[0])
    box = read_box(entry)
    return Instance(annotation_id, category_id, segmentation, area, box) if area else None
