"""Ground truth and any tool's detections, read for average precision; no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.average_precision import (
    CocoCategoryRow,
    CocoImage,
    CocoObject,
    Truth,
)
from ovsam_cli.evaluation.coco_entries import (
    ImageEntry,
    Tables,
    iter_annotations,
    open_coco,
    read_tables,
)
from ovsam_cli.masks import mask_areas, mask_boxes
from ovsam_cli.outputs.coco_values import (
    Entry,
    as_entry,
    read_box,
    read_integer,
    read_mask,
    read_number,
)
from ovsam_cli.prompt_files.json_stream import JsonStream
from ovsam_cli.vocabulary import normalize_name

TRUTH_WHAT, TRUTH_EXAMPLE = "COCO ground truth file", "annotations/instances_val2017.json"
FOUND_WHAT = "COCO file of detections"
FOUND_EXAMPLE = "OUT/annotations.json of `ovsam label`, or a list of results"


@dataclass(frozen=True, slots=True)
class TruthFile:
    """Ground truth with what is needed to match detections to it.

    Attributes:
        path, sha256: of the file.
        truth: its objects, crowds included.
        tables: its images and categories.
        has_masks: every object has one.
        is_federated: it says of each image which absent categories were checked, as LVIS does.
    """

    path: Path
    sha256: str
    truth: Truth
    tables: Tables
    has_masks: bool
    is_federated: bool


@dataclass(frozen=True, slots=True)
class FoundFile:
    """Detections of known images and categories.

    Attributes:
        path, sha256: of the file.
        objects: with scores; `area` is the mask's, or the box's where there is no mask.
        qualities: of each object, how good its mask is by the tool's own account; the score where
            it has none.
        has_masks: every object has one.
        left_out: how many entries were not used, by reason.
    """

    path: Path
    sha256: str
    objects: tuple[CocoObject, ...]
    qualities: tuple[float, ...]
    has_masks: bool
    left_out: dict[str, int]


def read_truth(path: Path) -> TruthFile:
    """Read ground truth; objects without pixels are left out.

    Raises:
        InputError: the file cannot be read, or is not of this form.
    """
    with open_coco(path, TRUTH_WHAT, TRUTH_EXAMPLE) as stream:
        sha256 = _hash(stream)
        tables = read_tables(stream)
        sizes = {image.image_id: image.original_hw for image in tables.images}
        names = tables.category_names
        objects: list[CocoObject] = []
        has_masks = True
        for entry in iter_annotations(stream):
            one = _read_object(entry, sizes[read_integer(entry, "image_id")])
            if one["category_id"] not in names:
                raise ValueError(f"annotation {one['id']}: no category {one['category_id']}")
            if one["area"] > 0:
                has_masks &= "segmentation" in one
                if "area" in entry:
                    one["area"] = read_number(entry, "area")
                one["id"] = len(objects) + 1  # 0 would mean "unmatched"
                objects.append(one)
    images = tuple(_image_row(image) for image in tables.images)
    categories = tuple(_category_row(one.id, one.name, one.frequency) for one in tables.categories)
    return TruthFile(
        path=path,
        sha256=sha256,
        truth=Truth(images, categories, tuple(objects)),
        tables=tables,
        has_masks=has_masks and bool(objects),
        is_federated=bool(tables.images)
        and all(image.negative_ids is not None for image in tables.images),
    )


def read_found(
    path: Path, truth: TruthFile, *, skipped: Mapping[int, str] = MappingProxyType({})
) -> FoundFile:
    """Read detections: a list of results, or a COCO file with scores.

    In a COCO file images are known by file name and categories by name, where these are in the
    ground truth; in a list of results, and for other names, by id.

    Args:
        path: of the detections.
        truth: what they are compared with.
        skipped: why images of the ground truth are not compared, by id; detections there are left
            out, and counted under these words.

    Raises:
        InputError: the file cannot be read, is not of this form, or none of its objects is of an
            image and a category of the ground truth.
    """
    with open_coco(path, FOUND_WHAT, FOUND_EXAMPLE) as stream:
        sha256 = _hash(stream)
        is_list = stream.peek() == "["
        tables = None if is_list else read_tables(stream)
        matcher = _Matcher(truth.tables, tables)
        left_out: Counter[str] = Counter()
        objects: list[CocoObject] = []
        qualities: list[float] = []
        for entry in _iter_results(stream) if is_list else iter_annotations(stream):
            found = _read_found(entry, matcher, skipped, left_out)
            if found is not None:
                found["id"] = len(objects) + 1
                objects.append(found)
                qualities.append(_read_quality(entry, found["score"]))
    if left_out and not objects:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"{path}: none of its objects can be compared with {truth.path} ({reasons}); "
            "give the ground truth of the same images and categories"
        )
    return FoundFile(
        path=path,
        sha256=sha256,
        objects=tuple(objects),
        qualities=tuple(qualities),
        has_masks=all("segmentation" in one for one in objects),
        left_out=dict(left_out),
    )


class _Matcher:
    """Which image and category of the ground truth an entry of another file is of."""

    def __init__(self, truth: Tables, found: Tables | None) -> None:
        self.sizes = {image.image_id: image.original_hw for image in truth.images}
        self.images = {number: number for number in self.sizes}
        self.categories = {one.id: one.id for one in truth.categories}
        if found is None:
            return
        images = _match_images(truth.images, found.images)
        if images:
            self.images = images
        names = {normalize_name(one.name): one.id for one in truth.categories}
        by_name = {
            one.id: names[normalize_name(one.name)]
            for one in found.categories
            if normalize_name(one.name) in names
        }
        if by_name:
            self.categories = by_name


def _match_images(truth: tuple[ImageEntry, ...], found: tuple[ImageEntry, ...]) -> dict[int, int]:
    """Id of the ground truth's image for each id of the other file: by file name.

    Where no whole name agrees, names without folders do, as far as they are unique.
    """
    for name_of in (lambda one: one.file.as_posix(), lambda one: PurePosixPath(one.file).name):
        counts = Counter(name_of(one) for one in truth)
        ids = {name_of(one): one.image_id for one in truth if counts[name_of(one)] == 1}
        matched = {one.image_id: ids[name_of(one)] for one in found if name_of(one) in ids}
        if matched:
            return matched
    return {}


def _iter_results(stream: JsonStream) -> Iterator[Entry]:
    stream.rewind()
    yield from map(as_entry, stream.iter_items())


def _hash(stream: JsonStream) -> str:
    digest = hashlib.sha256()
    stream.hash_into(digest.update)
    return digest.hexdigest()


def _read_object(entry: Entry, original_hw: tuple[int, int]) -> CocoObject:
    """An annotation; its area is the mask's, else the box's."""
    box = read_box(entry)
    found: CocoObject = {
        "id": 0,
        "image_id": read_integer(entry, "image_id"),
        "category_id": read_integer(entry, "category_id"),
        "bbox": [] if box is None else [*box],
        "area": 0.0 if box is None else box[2] * box[3],
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
    }
    if entry.get("segmentation"):
        mask = read_mask(entry, original_hw)
        found["segmentation"] = mask
        found["area"] = float(mask_areas([mask])[0])
        if box is None:
            left, top, right, bottom = mask_boxes([mask])[0].tolist()
            found["bbox"] = [left, top, right - left, bottom - top]
    elif box is None:
        raise ValueError(f"annotation {entry.get('id')}: neither bbox nor segmentation")
    return found


def _read_found(
    entry: Entry, matcher: _Matcher, skipped: Mapping[int, str], left_out: Counter[str]
) -> CocoObject | None:
    """A detection under the ground truth's ids; None, and counted, where it cannot be compared."""
    image_id = matcher.images.get(read_integer(entry, "image_id"))
    category_id = matcher.categories.get(read_integer(entry, "category_id"))
    reason = "of unknown images" if image_id is None else skipped.get(image_id)
    if reason is None and category_id is None:
        reason = "of unknown categories"
    if reason is not None:
        left_out[reason] += 1
        return None
    assert image_id is not None and category_id is not None  # else there is a reason
    found = _read_object(entry, matcher.sizes[image_id])
    found["image_id"], found["category_id"], found["iscrowd"] = image_id, category_id, 0
    if "score" not in entry:  # average precision is a matter of their order
        raise ValueError("a detection without score, by which they are ranked; write one for each")
    found["score"] = read_number(entry, "score")
    return found


def _read_quality(entry: Mapping[str, object], score: float) -> float:
    """`predicted_iou`, else `stability_score`, of `attributes`; else the score."""
    attributes = entry.get("attributes")
    if isinstance(attributes, dict):
        for key in ("predicted_iou", "stability_score"):
            if key in attributes:
                return read_number(attributes, key)
    return score


def _image_row(image: ImageEntry) -> CocoImage:
    height, width = image.original_hw
    row: CocoImage = {"id": image.image_id, "height": height, "width": width}
    if image.negative_ids is not None:
        row["neg_category_ids"] = [*image.negative_ids]
        row["not_exhaustive_category_ids"] = [*(image.not_exhaustive_ids or ())]
    return row


def _category_row(number: int, name: str, frequency: str) -> CocoCategoryRow:
    row: CocoCategoryRow = {"id": number, "name": name}
    if frequency:
        row["frequency"] = frequency
    return row
