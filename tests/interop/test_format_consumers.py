"""Readers of the other formats."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_builders import CATEGORIES, HW, MASKS, NAMES, compute_iou, tight_box
from interop_records import Record, collect_datumaro, lowest_iou, write_all

from ovsam_cli.masks import decode_mask
from ovsam_cli.outputs.exports.cvat import open_cvat
from ovsam_cli.outputs.exports.image_folder import open_image_folder
from ovsam_cli.outputs.exports.label_studio import LabelStudioOptions, open_label_studio
from ovsam_cli.outputs.exports.voc import open_voc
from ovsam_cli.outputs.exports.webdataset import open_webdataset
from ovsam_cli.outputs.exports.yolo import YoloOptions, open_yolo
from ovsam_cli.outputs.image_files import ImageSource

pytestmark = pytest.mark.interop
COPY = ImageSource("copy")


def export(context, photos) -> None:
    with context as writer:
        write_all(writer, photos[1])


@pytest.fixture
def yolo(photos, tmp_path) -> Path:
    export(
        open_yolo(tmp_path / "yolo", CATEGORIES, YoloOptions(val_share=0.0, images=COPY)), photos
    )
    return tmp_path / "yolo"


def test_ultralytics_trains_on_yolo_seg(yolo, record: Record):
    """Its own data set class: what training would see."""
    from pycocotools import mask as coco_mask
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(yolo / "data.yaml"), autodownload=False)
    assert list(data["names"].values()) == list(NAMES)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False)
    found = {}
    for label in dataset.labels:
        name = os.path.relpath(label["im_file"], yolo / "images" / "train")
        assert tuple(label["shape"]) == HW
        assert label["cls"].ravel().tolist() == [row % 3 for row in range(len(MASKS[name]))]
        polygons = [(one * HW[::-1]).ravel().tolist() for one in label["segments"]]
        found[name] = [
            coco_mask.decode(coco_mask.frPyObjects([one], *HW))[..., 0] for one in polygons
        ]
    iou = lowest_iou(found)
    record("ultralytics", "yolo-seg", "`YOLODataset(task='segment')`", iou)
    assert iou >= 0.86


def test_ultralytics_trains_on_yolo_box(photos, tmp_path, record: Record):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    options = YoloOptions(shapes="boxes", val_share=0.0, images=ImageSource("link"))
    export(open_yolo(tmp_path / "yolo", CATEGORIES, options), photos)
    data = check_det_dataset(str(tmp_path / "yolo" / "data.yaml"), autodownload=False)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = YOLODataset(img_path=data["train"], data=data, task="detect", augment=False)
    boxes = {
        os.path.relpath(label["im_file"], tmp_path / "yolo/images/train"): label["bboxes"]
        for label in dataset.labels
    }
    check_boxes({name: to_xyxy(rows * [*HW[::-1], *HW[::-1]]) for name, rows in boxes.items()})
    record("ultralytics", "yolo-box", "`YOLODataset(task='detect')`: boxes equal", None)


def to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """Centers and sizes to corners."""
    return np.concatenate(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1
    )


def check_boxes(found) -> None:
    for name, masks in MASKS.items():
        for box, mask in zip(found[name], masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            true = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box, true, atol=1e-4)


def test_supervision_reads_yolo_seg(yolo, record: Record):
    """Of files in one folder: supervision does not look into folders."""
    import supervision

    flat = yolo.parent / "flat"
    flat.mkdir()
    shutil.copy(yolo / "images/train/a.png", flat)
    dataset = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(flat),
        annotations_directory_path=str(yolo / "labels/train"),
        data_yaml_path=str(yolo / "data.yaml"),
        force_masks=True,
    )
    ((_, _, detections),) = list(dataset)
    overlap = [
        (found & true).sum() / (found | true).sum()
        for found, true in zip(detections.mask, MASKS["a.png"], strict=True)
    ]
    record(
        "supervision",
        "yolo-seg",
        "`DetectionDataset.from_yolo` (it draws outlines too)",
        min(overlap),
    )
    assert min(overlap) > 0.8


def test_supervision_reads_voc(photos, tmp_path, record: Record):
    import supervision

    export(open_voc(tmp_path / "voc", CATEGORIES, COPY), photos)
    dataset = supervision.DetectionDataset.from_pascal_voc(
        images_directory_path=str(tmp_path / "voc/JPEGImages"),
        annotations_directory_path=str(tmp_path / "voc/Annotations"),
    )
    found = {os.path.relpath(path, tmp_path / "voc/JPEGImages"): d.xyxy for path, _, d in dataset}
    true = [tight_box(mask) for mask in MASKS["a.png"]]
    np.testing.assert_array_equal(found["a.png"], true)  # it does not look into folders
    record("supervision", "voc", "`DetectionDataset.from_pascal_voc`: boxes equal", None)


def test_torchvision_reads_voc(photos, tmp_path, record: Record):
    """Its loader wants `VOCdevkit/VOC2012` above the folder."""
    from torchvision.datasets import VOCDetection, VOCSegmentation

    root = tmp_path / "VOCdevkit" / "VOC2012"
    jpeg = [one for one in photos[1] if one.record.file_name.endswith(".jpg")]
    with open_voc(root, CATEGORIES, COPY) as writer:
        write_all(writer, jpeg)
    boxes = VOCDetection(tmp_path, image_set="train")
    names = {one["name"] for _, target in boxes for one in target["annotation"]["object"]}
    assert names == {name.replace(":", "_") for name in NAMES[:3]}
    shapes = VOCSegmentation(tmp_path, image_set="train")
    assert [np.asarray(target).max() for _, target in shapes] == [2, 3]
    record("torchvision", "voc", "`VOCDetection`, `VOCSegmentation` (.jpg only)", None)


def test_datumaro_reads_voc(photos, tmp_path, record: Record):
    from datumaro.components.annotation import Bbox
    from datumaro.components.dataset import Dataset

    export(open_voc(tmp_path / "voc", CATEGORIES, COPY), photos)
    dataset = Dataset.import_from(str(tmp_path / "voc"), "voc_detection")
    by_stem = {name.rpartition(".")[0]: name for name in MASKS}
    found = {
        by_stem[item.id]: [one.get_bbox() for one in item.annotations if isinstance(one, Bbox)]
        for item in dataset
    }
    for name, masks in MASKS.items():
        for (x, y, width, height), mask in zip(found[name], masks, strict=True):
            left, top, right, bottom = tight_box(mask)
            # It keeps VOC's count from 1 as it stands, so left and top are one pixel off.
            assert [x, y, x + width, y + height] == [left + 1, top + 1, right, bottom]
    what = (
        "`Dataset.import_from(…, 'voc_detection')`: boxes, left and top off by 1 (it counts from 0)"
    )
    record("datumaro", "voc", what, None)


def test_datumaro_reads_cvat(photos, tmp_path, record: Record):
    """CVAT imports its own format through datumaro's reader too."""
    from datumaro.components.dataset import Dataset

    export(open_cvat(tmp_path / "cvat", CATEGORIES), photos)
    shutil.copytree(photos[0], tmp_path / "cvat" / "images")
    dataset = Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    found = collect_datumaro(dataset)
    iou = lowest_iou(found)
    record("datumaro", "cvat (XML 1.1)", "`Dataset.import_from(…, 'cvat')`", iou)
    assert iou == 1.0


def test_datumaro_reads_the_coco_archive(photos, tmp_path, record: Record):
    from datumaro.components.dataset import Dataset

    export(open_cvat(tmp_path / "cvat", CATEGORIES), photos)
    shutil.unpack_archive(tmp_path / "cvat" / "coco.zip", tmp_path / "coco")
    shutil.copytree(photos[0], tmp_path / "coco" / "images" / "default")
    iou = lowest_iou(collect_datumaro(Dataset.import_from(str(tmp_path / "coco"), "coco")))
    record("datumaro", "cvat (COCO archive)", "`Dataset.import_from(…, 'coco')`", iou)
    assert iou == 1.0


def test_datasets_reads_imagefolder(photos, tmp_path, record: Record):
    import datasets

    export(open_image_folder(tmp_path / "hf", CATEGORIES, COPY), photos)
    dataset = datasets.load_dataset(
        str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "c")
    )
    found, names = {}, dict(enumerate(MASKS, start=1))
    for row in dataset:
        assert row["image"].size == HW[::-1]
        objects = row["objects"]
        assert objects["category"] == list(NAMES[: len(objects["category"])])
        found[names[row["image_id"]]] = [decode_mask(rle) for rle in objects["segmentation"]]
    iou = lowest_iou(found)
    record("datasets", "hf-imagefolder", "`load_dataset(folder)`: types, images, masks", iou)
    assert iou == 1.0


def test_webdataset_reads_shards(photos, tmp_path, record: Record):
    import webdataset

    export(open_webdataset(tmp_path / "w", CATEGORIES, COPY, images_per_shard=3), photos)
    shards = sorted(str(path) for path in (tmp_path / "w").glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
    found = {}
    for sample in dataset:
        image = sample.get("png", sample.get("jpg"))
        assert image.shape == (*HW, 3)
        row = sample["json"]
        found[row["file_name"]] = [decode_mask(one["segmentation"]) for one in row["objects"]]
    iou = lowest_iou(found)
    record("webdataset", "webdataset", "`WebDataset(shards).decode('rgb8')`", iou)
    assert iou == 1.0


def test_datasets_reads_shards(photos, tmp_path, record: Record):
    import datasets

    # It wants the same entries in every sample: all images must be of one kind.
    with open_webdataset(tmp_path / "w", CATEGORIES, COPY) as writer:
        write_all(writer, [one for one in photos[1] if one.record.file_name.endswith(".jpg")])
    dataset = datasets.load_dataset(
        "webdataset",
        data_files={"train": str(tmp_path / "w" / "*.tar")},
        split="train",
        cache_dir=str(tmp_path / "c"),
    )
    lowest = 1.0
    for row in dataset:
        for one, true in zip(row["json"]["objects"], MASKS[row["json"]["file_name"]], strict=True):
            lowest = min(lowest, compute_iou(decode_mask(one["segmentation"]), true))
    record("datasets", "webdataset", "`load_dataset('webdataset', …)`, one kind of image", lowest)
    assert lowest == 1.0


def test_label_studio_decodes_brushes(photos, tmp_path, record: Record):
    from label_studio_sdk.converter.brush import decode_rle, encode_rle

    from ovsam_cli.outputs.brush_runs import encode_brush_mask

    options = LabelStudioOptions()
    export(open_label_studio(tmp_path / "ls", CATEGORIES, options), photos)
    found = {}
    for name, task in zip(MASKS, json.loads((tmp_path / "ls/tasks.json").read_text()), strict=True):
        found[name] = [
            decode_rle(one["value"]["rle"]).reshape(*HW, 4)[..., 3] > 0
            for one in task["predictions"][0]["result"]
        ]
    iou = lowest_iou(found)
    for masks in MASKS.values():
        for mask in masks:
            values = np.repeat(mask.ravel() * np.uint8(255), 4)
            np.testing.assert_array_equal(
                decode_rle(encode_rle(values)), decode_rle(encode_brush_mask(mask))
            )
    record("label-studio-sdk", "label-studio", "`converter.brush.decode_rle`", iou)
    assert iou == 1.0


def test_label_studio_accepts_the_tasks(photos, tmp_path, record: Record):
    """The SDK checks predictions against the labeling interface."""
    from label_studio_sdk.label_interface import LabelInterface

    export(open_label_studio(tmp_path / "ls", CATEGORIES, LabelStudioOptions()), photos)
    interface = LabelInterface((tmp_path / "ls/interface.xml").read_text())
    interface.validate()
    for task in json.loads((tmp_path / "ls/tasks.json").read_text()):
        assert interface.validate_prediction(task["predictions"][0])
    record("label-studio-sdk", "label-studio", "`LabelInterface.validate_prediction`", None)
