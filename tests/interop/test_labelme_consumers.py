"""labelme's own reader, for its files and for those of X-AnyLabeling, which extend them.

X-AnyLabeling is a window and no library: what reads its files cannot be called without one.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from export_builders import CATEGORIES, HW, MASKS, NAMES
from interop_records import Record, lowest_iou, write_all

from ovsam_cli.outputs.exports.labelme import open_labelme
from ovsam_cli.outputs.image_files import ImageSource

pytestmark = pytest.mark.interop


def read_shapes(photos, folder: Path, program: Literal["labelme", "x-anylabeling"]):
    """What labelme's reader finds in the file of each image: it opens the image too."""
    from labelme import LabelFile

    with open_labelme(folder, CATEGORIES, ImageSource("copy"), program) as writer:
        write_all(writer, photos[1])
    return {name: LabelFile(str((folder / name).with_suffix(".json"))).shapes for name in MASKS}


def test_labelme_draws_masks(photos, tmp_path, record: Record):
    from labelme.utils.shape import shapes_to_label

    found = {}
    for name, shapes in read_shapes(photos, tmp_path / "l", "labelme").items():
        assert [shape["label"] for shape in shapes] == list(NAMES[: len(shapes)])
        found[name] = [
            shapes_to_label((*HW, 3), [shape], {shape["label"]: 1})[0] == 1 for shape in shapes
        ]
    iou = lowest_iou(found)
    record("labelme", "labelme", "`LabelFile(file)`, `utils.shapes_to_label`", iou)
    assert iou == 1.0


def test_labelme_reads_files_of_x_anylabeling(photos, tmp_path, record: Record):
    from pycocotools import mask as coco_mask

    found = {}
    for name, shapes in read_shapes(photos, tmp_path / "x", "x-anylabeling").items():
        assert {shape["shape_type"] for shape in shapes} <= {"polygon"}
        assert all(0 <= shape["other_data"]["score"] <= 1 for shape in shapes)
        # Parts of one object share a group; objects of one part have none.
        keys = [shape["group_id"] or -row for row, shape in enumerate(shapes, start=1)]
        found[name] = []
        for _, group in groupby(range(len(shapes)), key=keys.__getitem__):
            flat = [np.ravel(shapes[row]["points"]).tolist() for row in group]
            polygons = coco_mask.frPyObjects(flat, *HW)
            found[name].append(coco_mask.decode(coco_mask.merge(polygons)))
    iou = lowest_iou(found)
    what = "`LabelFile(file)`, polygons filled by pycocotools"
    record("labelme", "x-anylabeling", what, iou)
    assert iou >= 0.86
