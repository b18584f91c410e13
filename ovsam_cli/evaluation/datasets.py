"""Instance data sets in COCO's JSON form: which images, which objects, which names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.json_scanner import JsonScanner
from ovsam_cli.masks import encode_polygons, mask_areas
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.structures import Rle

LVIS_FOLDERS = ("train2017", "val2017")


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
    """Read a COCO or LVIS instances file; crowds and objects without pixels are left out.

    Entries are read one by one, so a file of a gigabyte takes little more memory than its size.

    Args:
        annotations: JSON with `images`, `annotations` (polygons, or run lengths, compressed or
            not) and `categories`.
        image_folder: where `file_name` is found. LVIS has `coco_url` instead: its images are in
            the folders `train2017` and `val2017` there, or in `image_folder` if it is one of them.

    Raises:
        InputError: the file cannot be read, or is not of this form.
    """
    try:
        scanner = JsonScanner(annotations.read_text(encoding="utf-8"))
        tables = _read_tables(scanner)
        images = {image.image_id: image for image in tables.images}
        found: dict[int, list[Instance]] = {image_id: [] for image_id in images}
        scanner.position = tables.annotations_at
        for entry in map(_as_entry, scanner.iter_items()):
            if not entry.get("iscrowd", 0):
                image = images[_integer(entry, "image_id")]
                instance = _read_instance(entry, image, tables.category_names)
                found[image.image_id] += [] if instance is None else [instance]
    except FileNotFoundError as error:
        raise InputError(
            f"{annotations}: not a COCO instances file: no such file; give its path, such as "
            "annotations/instances_train2017.json"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{annotations}: not a COCO instances file ({type(error).__name__}: {error}); "
            "expected images, annotations with segmentations, and categories"
        ) from error
    return InstanceDataset(
        source=annotations,
        images=tuple(
            InstanceImage(
                path=_find_image(image_folder, image),
                image_id=image.image_id,
                original_hw=image.original_hw,
                instances=tuple(found[image.image_id]),
            )
            for image in tables.images
        ),
        category_names=tables.category_names,
    )


def read_instance_folder(folder: Path) -> InstanceDataset:
    """Read `folder/instances.json` with its images in `folder/images`."""
    return read_instances(folder / "instances.json", folder / "images")


def check_image_files(dataset: InstanceDataset) -> None:
    """Make sure that every image with objects is there; folders are listed, not files asked for.

    Raises:
        InputError: naming how many are missing, the first one and where it was looked for.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for image in dataset.images:
        if image.instances:
            folder, name = os.path.split(image.path)
            by_folder[folder].append(name)
    missing = []
    for folder, names in by_folder.items():
        try:
            there = set(os.listdir(folder))
        except OSError:
            there = set()
        missing += [os.path.join(folder, name) for name in names if name not in there]
    if missing:
        total = sum(map(len, by_folder.values()))
        raise InputError(
            f"{dataset.source}: {len(missing)} of {total} images are missing; the first was "
            f"expected at {missing[0]}; put the images there, or give the folder they are in"
        )


@dataclass(frozen=True, slots=True)
class _Tables:
    """The short lists of a file, and where its long one begins."""

    images: tuple[_ImageEntry, ...]
    category_names: dict[int, str]
    annotations_at: int


@dataclass(frozen=True, slots=True)
class _ImageEntry:
    image_id: int
    original_hw: tuple[int, int]
    file: PurePosixPath  # `file_name`, or folder and name of `coco_url`
    is_lvis: bool


def _read_tables(scanner: JsonScanner) -> _Tables:
    """Images and categories; annotations are only walked over."""
    lists: dict[str, list[object]] = {}
    annotations_at = -1
    for key in scanner.iter_keys():
        if key == "annotations":
            annotations_at = scanner.position
            for _ in scanner.iter_items():
                pass
        elif key in ("images", "categories"):
            lists[key] = [*scanner.iter_items()]
        else:
            scanner.take()
    if annotations_at < 0:
        raise KeyError("annotations")
    categories = [_as_entry(one) for one in lists["categories"]]
    return _Tables(
        images=tuple(_read_image(_as_entry(one)) for one in lists["images"]),
        category_names={_integer(one, "id"): str(one["name"]) for one in categories},
        annotations_at=annotations_at,
    )


def _read_image(entry: Mapping[str, object]) -> _ImageEntry:
    is_lvis = "file_name" not in entry
    if is_lvis:
        *_, folder, name = PurePosixPath(str(entry["coco_url"])).parts
        file = PurePosixPath(folder, name)
    else:
        file = PurePosixPath(str(entry["file_name"]))
    original_hw = _integer(entry, "height"), _integer(entry, "width")
    return _ImageEntry(_integer(entry, "id"), original_hw, file, is_lvis)


def _as_entry(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is no object")
    return value


def _integer(entry: Mapping[str, object], key: str) -> int:
    value = entry[key]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # some exporters write 640.0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} {value!r:.80} is no whole number")
    return value


def _find_image(image_folder: Path, image: _ImageEntry) -> Path:
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


def _read_instance(
    entry: Mapping[str, object], image: _ImageEntry, names: Mapping[int, str]
) -> Instance | None:
    """The object, or None for a mask without pixels."""
    annotation_id, category_id = _integer(entry, "id"), _integer(entry, "category_id")
    found = entry["segmentation"]
    if isinstance(found, list):
        segmentation = encode_polygons(found, image.original_hw)
    else:
        segmentation = read_segmentation(found)
    if tuple(segmentation["size"]) != image.original_hw:
        raise ValueError(
            f"annotation {annotation_id}: mask {segmentation['size']}, image {image.original_hw}"
        )
    if category_id not in names:
        raise ValueError(f"annotation {annotation_id}: no category {category_id}")
    area = int(mask_areas([segmentation])[0])
    return Instance(annotation_id, category_id, segmentation, area) if area else None
