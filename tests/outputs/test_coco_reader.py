"""COCO files of other programs as results: order, shapes of masks, odd ids, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from export_builders import CATEGORIES, HW, MASKS, write_images
from pycocotools import mask as coco_mask

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoOptions, CocoWriter
from ovsam_cli.outputs.coco_reader import open_coco
from ovsam_cli.outputs.exporting import Loss

IMAGES = [
    {"id": 7, "file_name": "b.jpg", "height": HW[0], "width": HW[1]},
    {"id": 3, "file_name": "a.jpg", "height": HW[0], "width": HW[1], "exif_orientation": 6},
]
BOX = [[10.0, 5.0, 20.0, 5.0, 20.0, 15.0, 10.0, 15.0]]


def make_object(**values):
    return {"id": 1, "image_id": 3, "category_id": 5, "segmentation": BOX, **values}


def write(path: Path, **parts) -> Path:
    data = {
        "images": IMAGES,
        "annotations": [make_object()],
        "categories": [{"id": 5, "name": "dog", "supercategory": "animal"}],
        **parts,
    }
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return path


def read(path: Path, **options):
    with open_coco(path, **options) as source:
        return source, list(source.iter_results())


@pytest.mark.parametrize("mask_format", ["rle", "rle-uncompressed", "polygon"])
def test_our_own_file_comes_back(tmp_path, mask_format):
    results = write_images(tmp_path)
    path = tmp_path / "d.json"
    options = CocoOptions(masks=mask_format, description="mine")
    with CocoWriter(path, categories=CATEGORIES, options=options) as coco:
        for result in results:
            coco.write(result)
    source, found = read(path)
    assert source.categories == CATEGORIES
    assert source.losses == (Loss("object(s)' attributes", 7),)
    assert source.description == "mine" and source.num_images == 4
    for one, result in zip(found, results, strict=False):
        assert one.record == result.record and one.status == result.status
        np.testing.assert_array_equal(one.detections.scores, result.detections.scores)
        if mask_format != "polygon":
            assert one.detections.segmentations == result.detections.segmentations
    assert len(found) == len(MASKS)


def test_objects_in_any_order(tmp_path):
    rows = [
        make_object(id=number, image_id=image_id)
        for number, image_id in enumerate([7, 3, 7, 3], start=1)
    ]
    _, found = read(write(tmp_path / "d.json", annotations=rows), image_root=Path("/photos"))
    assert [one.record.image_id for one in found] == [3, 7]
    assert [one.detections.prompt_ids for one in found] == [(2, 4), (1, 3)]
    assert found[0].record.path == Path("/photos/a.jpg") and found[0].exif_orientation == 6
    np.testing.assert_array_equal(
        coco_mask.decode(found[0].detections.segmentations[0])[5:15, 10:20], 1
    )
    assert found[0].detections.areas.tolist() == [100, 100]
    assert found[0].detections.scores.tolist() == [1.0, 1.0]


def test_what_is_passed_over_is_counted(tmp_path):
    outside = [[100.0, 100.0, 110.0, 100.0, 110.0, 110.0]]
    rows = [
        make_object(iscrowd=1),
        make_object(segmentation=outside),
        make_object(segmentation=[], bbox=[2, 3, 4, 5]),
        {"id": 9, "image_id": 3, "category_id": 5, "bbox": [2.4, 3, 4, 5]},
    ]
    source, found = read(write(tmp_path / "d.json", annotations=rows))
    assert [(loss.what.split()[0], loss.count) for loss in source.losses] == [
        ("crowd", 1), ("object(s)", 1), ("object(s)", 2),
    ]  # fmt: skip
    assert found[0].detections.boxes_xyxy.tolist() == [[2, 3, 6, 8], [2, 3, 6, 8]]
    assert Loss("object(s) without a mask: their box was taken for one", 2) in source.losses


def test_ids_that_begin_at_zero_are_moved(tmp_path):
    """Label Studio's export counts from 0, which COCO's evaluation takes for "unmatched"."""
    images = [{**IMAGES[0], "id": 0}, {**IMAGES[1], "id": 1}]
    names = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    rows = [make_object(image_id=0, category_id=1)]
    source, found = read(
        write(tmp_path / "d.json", images=images, categories=names, annotations=rows)
    )
    assert [one.id for one in source.categories] == [1, 2]
    assert [one.record.image_id for one in found] == [1, 2]
    assert found[0].detections.category_ids.tolist() == [2]


def test_annotations_may_come_first(tmp_path):
    path = write(tmp_path / "d.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(data.items()))))
    assert len(read(path)[1][0].detections) == 1


def test_lvis_names_come_from_addresses(tmp_path):
    image = {"id": 3, "height": HW[0], "width": HW[1], "coco_url": "http://x/val2017/1.jpg"}
    _, found = read(write(tmp_path / "d.json", images=[image]))
    assert found[0].record.file_name == "val2017/1.jpg"


def test_whole_numbers_may_have_a_point(tmp_path):
    """Some exporters write 640.0; evaluation took such files, export did not."""
    image = {**IMAGES[1], "id": 3.0, "width": float(HW[1])}
    _, found = read(write(tmp_path / "d.json", images=[image]))
    assert found[0].original_hw == HW
    assert found[0].record.image_id == 3


SMALL = {"size": [9, 9], "counts": "00"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"categories": None}, "is no COCO data set: it has no 'categories'"),
        ({"categories": []}, "at least one name"),
        ({"annotations": [make_object(image_id=4)]}, "belong to image 4, which is not in it"),
        ({"annotations": [make_object(category_id=6)]}, r"annotations\[0\]: its category is not"),
        ({"annotations": [make_object(segmentation=SMALL)]}, r"annotations\[0\]: mask runs do not"),
        ({"annotations": [make_object(segmentation=[[1, "x"]])]}, "pairs of numbers"),
        ({"annotations": [make_object(segmentation=[1, 2])]}, "not of polygons"),
        ({"annotations": [make_object(segmentation=[])]}, "neither a segmentation nor a bbox"),
        ({"annotations": [3]}, r"annotations\[0\]: expected an object, found 3"),
        ({"images": [{**IMAGES[0], "width": None}]}, r"images\[0\]: width is None"),
        ({"images": [IMAGES[0], IMAGES[0]]}, "the id 7 is there twice"),
        ({"images": [{"id": 1, "height": 2, "width": 2}]}, "no file_name"),
    ],
)
def test_refusals_name_file_and_place(tmp_path, parts, message):
    with pytest.raises(InputError, match=rf"d\.json: .*{message}"):
        read(write(tmp_path / "d.json", **parts))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no COCO data set"),
        ('{"images": [', "is not JSON.*line 1"),
        ("[]", "is no COCO data set"),
    ],
)
def test_what_is_no_coco_file(tmp_path, text, message):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match=rf"d\.json: {message}"):
        read(tmp_path / "d.json")
    with pytest.raises(InputError, match=r"e\.json: cannot be read: No such file"):
        read(tmp_path / "e.json")


def test_masks_of_a_person(tmp_path):
    """Polygons as annotation programs write them: rasterized as pycocotools does."""
    polygon = [[12.3, 4.5, 30.1, 6.2, 25.0, 40.9], [50, 2, 60, 2, 55.5, 9.1]]
    _, found = read(write(tmp_path / "d.json", annotations=[make_object(segmentation=polygon)]))
    merged = coco_mask.merge(coco_mask.frPyObjects(polygon, *HW))
    assert found[0].detections.segmentations[0]["counts"] == merged["counts"].decode()
