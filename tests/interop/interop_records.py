"""What the interop tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from export_builders import HW, MASKS, compute_iou

from ovsam_cli.outputs.coco import CocoWriter
from ovsam_cli.outputs.exporting import ExportWriter
from ovsam_cli.structures import ImageResult

Record = Callable[[str, str, str, float | None], None]


def write_all(writer: ExportWriter | CocoWriter, results: list[ImageResult]) -> None:
    for result in results:
        writer.write(result)


def lowest_iou(found: dict[str, list[np.ndarray]]) -> float:
    """Lowest IoU of the masks of each image with the true ones, in their order."""
    assert set(found) == set(MASKS)
    pairs = [
        compute_iou(np.asarray(mask, bool), true)
        for name, masks in MASKS.items()
        for mask, true in zip(found[name], masks, strict=True)
    ]
    return min(pairs)


def collect_datumaro(dataset) -> dict[str, list[np.ndarray]]:
    """Masks by image; polygons of one group are one object, filled by pycocotools."""
    from datumaro.components.annotation import Mask, Polygon
    from pycocotools import mask as coco_mask

    by_stem = {name.rpartition(".")[0]: name for name in MASKS}
    found: dict[str, list[np.ndarray]] = {name: [] for name in MASKS}
    for item in dataset:
        groups: dict[int, list] = {}
        for one in item.annotations:
            if isinstance(one, Mask | Polygon):
                groups.setdefault(one.group or len(groups) + 1, []).append(one)
        for _, group in sorted(groups.items()):  # it hands them out backwards
            if isinstance(group[0], Mask):
                mask = np.any([one.image for one in group], axis=0)
            else:
                polygons = coco_mask.frPyObjects([list(one.points) for one in group], *HW)
                mask = coco_mask.decode(coco_mask.merge(polygons))
            found[by_stem[item.id]].append(mask)
    return found
