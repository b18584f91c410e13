"""Single values of COCO and LVIS entries, checked: whole numbers, boxes, masks, file names."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ovsam_cli.masks import encode_polygons
from ovsam_cli.run_lengths import read_segmentation
from ovsam_cli.structures import Rle

Entry = dict[str, object]


def as_entry(value: object) -> Entry:
    """The value, an object.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {value!r:.80}")
    return value


def read_integer(entry: Mapping[str, object], key: str) -> int:
    """A whole number; some exporters write 640.0.

    Raises:
        ValueError: it is none.
    """
    value = entry[key]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} is {value!r:.80}, expected a whole number")
    return value


def read_number(entry: Mapping[str, object], key: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} {value!r:.80} is no number")
    return float(value)


def read_box(entry: Mapping[str, object]) -> tuple[float, float, float, float] | None:
    """`bbox`, x y width height in original pixels; None where there is none.

    Raises:
        ValueError: not four numbers.
    """
    found = entry.get("bbox")
    if found is None or found == []:
        return None
    if not isinstance(found, list) or len(found) != 4:
        raise ValueError(f"bbox {found!r:.80} is not [x, y, width, height]")
    x, y, width, height = (read_number({"bbox": side}, "bbox") for side in found)
    return x, y, width, height


def read_mask(entry: Mapping[str, object], original_hw: tuple[int, int]) -> Rle:
    """`segmentation`, polygons or run lengths, as an RLE of the image's size.

    Raises:
        ValueError: it is malformed, or of another size.
    """
    found = entry["segmentation"]
    if isinstance(found, list):
        if not all(isinstance(polygon, list) for polygon in found):
            raise ValueError("segmentation is a list, but not of polygons")
        return encode_polygons(found, original_hw)
    segmentation = read_segmentation(found)
    if tuple(segmentation["size"]) != original_hw:
        raise ValueError(
            f"annotation {entry.get('id')}: a mask of {segmentation['size']} in an image of "
            f"{[*original_hw]} (height, width)"
        )
    return segmentation


def read_file_name(entry: Mapping[str, object]) -> str:
    """`file_name`; LVIS names its images by address only: folder and name are its last two parts.

    Raises:
        ValueError: there is neither.
    """
    name, url = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and name:
        return name
    if name is None and isinstance(url, str) and url:
        return "/".join(url.split("/")[-2:])
    raise ValueError("no file_name")
