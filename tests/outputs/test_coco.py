"""The COCO file: what readers need, lossless masks, whole or not there, the same bytes again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from result_builders import encode, failed_result, make_result, with_predicted_iou

from ovsam_cli import masks
from ovsam_cli.errors import OutputError
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions, CocoWriter

# pycocotools 2.0 has not followed numpy 2's rule for __array__ yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = (
    CocoCategory(1, "cat"),
    CocoCategory(2, "Jäger-Zaun", frequency="r"),
    CocoCategory(3, "dog", "animal"),
    CocoCategory(4, "unknown"),
)
RESULTS = (make_result(1, 4), make_result(2, 0), failed_result(3), make_result(7, 5, hw=(33, 40)))


def write(path: Path, results=RESULTS, **options):
    with CocoWriter(path, categories=CATEGORIES, options=CocoOptions(**options)) as coco:
        for result in results:
            coco.write(result)
    return json.loads(path.read_text()), coco.summary


def ring() -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[5:30, 8:40] = True
    mask[10:20, 15:25] = False
    mask[40:44, 50:60] = True
    return mask


def with_masks(*dense: np.ndarray):
    """An image whose objects have these masks."""
    result = make_result(1, len(dense), hw=dense[0].shape)
    rles = tuple(encode(mask) for mask in dense)
    found = replace(
        result.detections,
        segmentations=rles,
        areas=masks.mask_areas(rles),
        boxes_xyxy=masks.mask_boxes(rles),
    )
    return replace(result, detections=found)


def test_predicted_iou_is_there_where_the_model_predicts_it_and_nowhere_else(tmp_path):
    data, _ = write(tmp_path / "a.json", [with_predicted_iou(make_result(1, 3))])
    found = [row["attributes"]["predicted_iou"] for row in data["annotations"]]
    assert found == [0.3, 0.655, 1.01]
    data, _ = write(tmp_path / "b.json", [make_result(1, 3)])
    assert not any("predicted_iou" in row["attributes"] for row in data["annotations"])


def test_every_key_a_reader_needs(tmp_path):
    data, summary = write(tmp_path / "a.json", version="ovsam 1", weights_notice="tiny, MIT")
    assert list(data) == ["info", "licenses", "categories", "images", "annotations"]
    assert data["info"] == {"description": "", "version": "ovsam 1", "weights_notice": "tiny, MIT"}
    assert data["licenses"] == []
    assert data["categories"][0] == {"id": 1, "name": "cat", "supercategory": "object"}
    assert data["categories"][1]["frequency"] == "r"
    assert data["categories"][1]["name"] == "Jäger-Zaun"
    assert [image["id"] for image in data["images"]] == [1, 2, 7]
    assert data["images"][2] == {
        "id": 7, "file_name": "dir/7.jpg", "width": 40, "height": 33, "exif_orientation": 1,
    }  # fmt: skip
    assert [row["id"] for row in data["annotations"]] == list(range(1, 10))
    for row in data["annotations"]:
        assert list(row) == [
            "id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "score",
            "attributes",
        ]  # fmt: skip
        assert row["iscrowd"] == 0
        assert list(row["attributes"]) == ["prompt_id", "stability_score", "margin"]
        assert row["bbox"] == coco_mask.toBbox(row["segmentation"]).tolist()
        assert row["area"] == float(coco_mask.area(row["segmentation"]))
        assert all(isinstance(value, float) for value in [*row["bbox"], row["area"], row["score"]])
    assert summary.num_images == 3 and summary.num_annotations == 9 and summary.num_failed == 1


def test_scores_are_the_float32_values(tmp_path):
    data, _ = write(tmp_path / "a.json")
    found = np.array([row["score"] for row in data["annotations"][:4]], np.float32)
    np.testing.assert_array_equal(found, RESULTS[0].detections.scores)


def test_masks_are_lossless(tmp_path):
    data, _ = write(tmp_path / "a.json", [with_masks(ring())])
    np.testing.assert_array_equal(
        coco_mask.decode(data["annotations"][0]["segmentation"]).astype(bool), ring()
    )


def test_uncompressed_masks_are_lossless(tmp_path):
    full = np.ones((48, 64), bool)
    corner = np.zeros((48, 64), bool)
    corner[0, 0] = corner[-1, -1] = True
    dense = (ring(), full, corner)
    data, _ = write(tmp_path / "a.json", [with_masks(*dense)], masks="rle-uncompressed")
    for row, mask in zip(data["annotations"], dense, strict=True):
        rle = coco_mask.frPyObjects(row["segmentation"], 48, 64)
        np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), mask)
    assert data["annotations"][1]["segmentation"]["counts"] == [0, 48 * 64]


def test_polygons_have_all_parts_and_lost_holes_are_counted(tmp_path):
    data, summary = write(tmp_path / "a.json", [with_masks(ring(), ~ring())], masks="polygon")
    polygons = data["annotations"][0]["segmentation"]
    assert len(polygons) == 2 and all(len(polygon) >= 6 for polygon in polygons)
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, 48, 64))
    filled = ring()
    filled[10:20, 15:25] = True
    np.testing.assert_array_equal(coco_mask.decode(merged).astype(bool), filled)
    assert data["annotations"][0]["area"] == ring().sum()  # of the mask, not of the polygon
    assert summary.num_masks_with_lost_holes == 2 and summary.num_lost_holes == 3
    assert summary.num_rle_fallbacks == 0


def test_mask_without_polygon_falls_back_to_rle_and_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "mask_to_polygons", lambda rle: masks.MaskPolygons((), 0))
    data, summary = write(tmp_path / "a.json", [with_masks(ring())], masks="polygon")
    assert data["annotations"][0]["segmentation"] == encode(ring())
    assert summary.num_rle_fallbacks == 1


def test_masks_can_be_left_out(tmp_path):
    data, _ = write(tmp_path / "a.json", masks="none")
    assert all("segmentation" not in row and row["area"] > 0 for row in data["annotations"])


def test_prompts_and_topk_on_request(tmp_path):
    data, _ = write(tmp_path / "a.json", with_prompt=True, with_topk=True)
    rows = [row["attributes"] for row in data["annotations"][:4]]
    prompts = RESULTS[0].detections.prompts
    assert rows[0]["prompt_id"] == "p0" and rows[1]["prompt_id"] == 1
    assert rows[0]["prompt"]["labels"] == [1] and len(rows[0]["prompt"]["points"]) == 1
    assert rows[1]["prompt"]["labels"] == [1, 0] and "box" not in rows[1]["prompt"]
    assert np.array(rows[0]["prompt"]["box"], np.float32).tolist() == prompts.boxes_xyxy[0].tolist()
    assert "mask" in rows[3]["prompt"] and "mask" not in rows[0]["prompt"]
    assert "score" in rows[1]["prompt"] and "score" not in rows[0]["prompt"]
    assert rows[0]["topk"] == [list(pair) for pair in RESULTS[0].detections.topk[0]]


def test_names_that_are_not_utf8_come_back_as_the_same_bytes(tmp_path):
    name = "br\udce9.jpg"
    result = make_result(1, 1)
    result = replace(result, record=replace(result.record, file_name=name))
    data, _ = write(tmp_path / "a.json", [result])
    assert os.fsencode(data["images"][0]["file_name"]) == b"br\xe9.jpg"
    assert (tmp_path / "a.json").read_bytes().isascii()


def test_equal_runs_give_equal_bytes(tmp_path):
    write(tmp_path / "a.json", with_prompt=True)
    write(tmp_path / "b.json", with_prompt=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert b"date" not in (tmp_path / "a.json").read_bytes()
    data, _ = write(tmp_path / "c.json", date_created="2030-01-01")
    assert data["info"]["date_created"] == "2030-01-01"


def test_no_images_is_a_valid_file(tmp_path):
    data, summary = write(tmp_path / "a.json", [])
    assert data["images"] == [] and data["annotations"] == []
    assert summary.num_images == 0


def test_older_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with (
        pytest.raises(KeyboardInterrupt),
        CocoWriter(path, categories=CATEGORIES, options=CocoOptions()) as coco,
    ):
        coco.write(RESULTS[0])
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_folder_that_is_not_there(tmp_path):
    path = tmp_path / "no" / "a.json"
    with pytest.raises(OutputError, match=r"a\.json: cannot be written: No such file"):
        write(path)


def test_full_disk_leaves_the_older_file(tmp_path):
    """The device /dev/full takes nothing; the error comes at the latest when the file is synced."""
    path = tmp_path / "a.json"
    path.write_text("old")
    (tmp_path / ".a.json.tmp").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"a\.json: cannot be written: No space left.*MB free"):
        write(path)
    assert os.listdir(tmp_path) == ["a.json"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": np.array([np.nan], np.float32)}, "JSON compliant"),
        ({"category_ids": np.array([5])}, r"category ids \[5\]"),
        ({"areas": np.array([0])}, "empty mask"),
        ({"segmentations": (encode(np.ones((9, 9))),)}, r"mask of \[9, 9\]"),
    ],
    ids=["nan", "category", "empty", "size"],
)
def test_results_that_would_spoil_the_file_are_refused(tmp_path, change, message):
    result = make_result(1, 1)
    result = replace(result, detections=replace(result.detections, **change))
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.json", [result])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("ids", [(0,), (2, 2), (2, 1)])
def test_image_ids_must_rise_from_one(tmp_path, ids):
    with pytest.raises(ValueError, match="must rise from 1"):
        write(tmp_path / "a.json", [make_result(image_id, 0) for image_id in ids])


@pytest.mark.parametrize("mask_format", ["rle", "polygon", "rle-uncompressed"])
def test_pycocotools_reads_it(tmp_path, mask_format, capsys):
    write(tmp_path / "a.json", [with_masks(np.tril(np.ones((48, 64), bool)))], masks=mask_format)
    coco = COCO(str(tmp_path / "a.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    np.testing.assert_array_equal(
        coco.annToMask(annotation).astype(bool), np.tril(np.ones((48, 64), bool))
    )


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mask_format", ["rle", "polygon"])
def test_supervision_reads_it(tmp_path, mask_format):
    supervision = pytest.importorskip("supervision")
    result = with_masks(np.tril(np.ones((48, 64), bool)))
    write(tmp_path / "a.json", [result], masks=mask_format)
    (tmp_path / "dir").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "dir" / "1.jpg")
    dataset = supervision.DetectionDataset.from_coco(
        images_directory_path=str(tmp_path),
        annotations_path=str(tmp_path / "a.json"),
        force_masks=True,
    )
    (_, _, detections) = dataset[0]
    assert dataset.classes[:2] == ["cat", "Jäger-Zaun"]
    overlap = detections.mask[0] == np.tril(np.ones((48, 64), bool))
    assert overlap.mean() > (0.999 if mask_format == "rle" else 0.9)
