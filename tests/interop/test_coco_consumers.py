"""Readers of COCO files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pytest
from export_builders import CATEGORIES, HW, MASKS, NAMES
from interop_records import Record, collect_datumaro, lowest_iou, write_all

from ovsam_cli.outputs.exports.coco_results import open_coco_results
from ovsam_cli.outputs.exports.lvis import open_lvis

pytestmark = pytest.mark.interop
FORMS = ("rle", "rle-uncompressed", "polygon")
# The ring has a hole, which a polygon has not; all else is the same to the pixel.
POLYGON_IOU = 0.86


def expected(form: str) -> float:
    return POLYGON_IOU if form == "polygon" else 1.0


def collect(coco) -> dict[str, list[np.ndarray]]:
    """Masks of a data set object of pycocotools' kind."""
    return {
        image["file_name"]: [
            coco.annToMask(one).astype(bool)
            for one in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        ]
        for image in coco.dataset["images"]
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("package", ["pycocotools", "faster-coco-eval"])
def test_masks(package, form, coco_files, record: Record):
    if package == "pycocotools":
        from pycocotools.coco import COCO
    else:
        from faster_coco_eval import COCO
    with contextlib.redirect_stdout(io.StringIO()):
        iou = lowest_iou(collect(COCO(str(coco_files[form]))))
    record(package, f"coco {form}", "`COCO(file)`, `annToMask`", iou)
    assert iou >= expected(form)


@pytest.mark.parametrize("package", ["pycocotools", "faster-coco-eval"])
def test_evaluation_of_results(package, coco_files, photos, tmp_path, record: Record):
    if package == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation
    with open_coco_results(tmp_path / "r.json", CATEGORIES) as writer:
        write_all(writer, photos[1])
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco_files["rle"]))
        evaluation = Evaluation(truth, truth.loadRes(str(tmp_path / "r.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    record(package, "coco-results", "`loadRes`, segm AP 1.0", None)
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("form", FORMS)
def test_torchvision(form, coco_files, photos, record: Record):
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDetection(photos[0], coco_files[form])
    wrapped = wrap_dataset_for_transforms_v2(dataset, target_keys=("masks", "boxes", "labels"))
    names = [image["file_name"] for image in dataset.coco.dataset["images"]]
    found = {}
    for name, (image, target) in zip(names, wrapped, strict=True):
        assert image.size == HW[::-1]
        # An image without objects has no such keys.
        found[name] = list(target["masks"].numpy()) if "masks" in target else []
    iou = lowest_iou(found)
    record("torchvision", f"coco {form}", "`CocoDetection`, `wrap_dataset_for_transforms_v2`", iou)
    assert iou >= expected(form)


@pytest.mark.parametrize("form", FORMS)
def test_supervision(form, coco_files, photos, record: Record):
    import supervision

    dataset = supervision.DetectionDataset.from_coco(
        images_directory_path=str(photos[0]),
        annotations_path=str(coco_files[form]),
        force_masks=True,
    )
    assert tuple(dataset.classes) == NAMES
    found = {}
    for path, image, detections in dataset:
        assert image.shape[:2] == HW
        name = os.path.relpath(path, photos[0])
        found[name] = [] if detections.mask is None else list(detections.mask)
    iou = lowest_iou(found)
    record("supervision", f"coco {form}", "`DetectionDataset.from_coco`", iou)
    assert iou >= (1.0 if form != "polygon" else 0.5)  # it draws polygons with their outline


@pytest.mark.parametrize("form", FORMS)
def test_datumaro(form, coco_files, photos, tmp_path, record: Record):
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    (tmp_path / "annotations").mkdir()
    shutil.copytree(photos[0], tmp_path / "images" / "default")
    shutil.copy(coco_files[form], tmp_path / "annotations" / "instances_default.json")
    dataset = Dataset.import_from(str(tmp_path), "coco_instances")
    labels = dataset.categories()[AnnotationType.label]
    assert [labels[index].name for index in range(len(NAMES))] == list(NAMES)
    found = collect_datumaro(dataset)
    iou = lowest_iou(found)
    record("datumaro", f"coco {form}", "`Dataset.import_from(…, 'coco_instances')`", iou)
    assert iou >= expected(form)


@pytest.mark.parametrize("form", FORMS)
def test_fiftyone_parser(form, coco_files, record: Record):
    import fiftyone.utils.coco as fouc

    _, classes, _, images, annotations = fouc.load_coco_detection_annotations(
        str(coco_files[form]), extra_attrs=True
    )
    assert NAMES[0] in str(classes)
    found: dict[str, list[np.ndarray]] = {}
    for image_id, image in images.items():
        boxes = [
            one.to_detection((HW[1], HW[0]), classes_map(classes), load_segmentation=True)
            for one in annotations.get(image_id, [])
        ]
        found[image["file_name"]] = [paste(box) for box in boxes]
        assert all(box.confidence is not None for box in boxes)
    iou = lowest_iou(found)
    record("fiftyone", f"coco {form}", "`load_coco_detection_annotations`, `to_detection`", iou)
    assert iou >= (1.0 if form != "polygon" else 0.5)


def classes_map(classes):
    return classes if isinstance(classes, dict) else dict(enumerate(classes, start=1))


def paste(detection) -> np.ndarray:
    """FiftyOne keeps a mask cut to its box, which is relative to the image."""
    x, y, _, _ = detection.bounding_box
    left, top = round(x * HW[1]), round(y * HW[0])
    mask = np.zeros(HW, bool)
    cut = detection.mask
    mask[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return mask


@pytest.mark.parametrize("form", FORMS)
def test_ultralytics_converter(form, coco_files, photos, tmp_path, record: Record):
    from pycocotools import mask as coco_mask
    from ultralytics.data.converter import convert_coco

    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(coco_files[form], source / "instances_train.json")
    with contextlib.redirect_stdout(io.StringIO()):
        convert_coco(str(source), str(tmp_path / "out"), use_segments=True, cls91to80=False)
    found = {}
    for name, masks in MASKS.items():
        # It writes all files into one folder, by the last part of the name.
        stem = name.rpartition("/")[2].rpartition(".")[0]
        (path,) = list((tmp_path / "out").rglob(f"{stem}.txt")) or [None]
        lines = [] if path is None else path.read_text().splitlines()
        polygons = [np.array(line.split()[1:], float).reshape(-1, 2) * HW[::-1] for line in lines]
        found[name] = [
            coco_mask.decode(coco_mask.frPyObjects([one.ravel().tolist()], *HW))[..., 0]
            for one in polygons
        ]
        assert len(lines) == len(masks)
    iou = lowest_iou(found)
    record("ultralytics", f"coco {form}", "`convert_coco(use_segments=True)`", iou)


def test_lvis_loader(photos, tmp_path, record: Record):
    from lvis import LVIS

    with open_lvis(tmp_path / "lvis.json", CATEGORIES) as writer:
        write_all(writer, photos[1])
    lvis = LVIS(str(tmp_path / "lvis.json"))
    found = {
        image["file_name"]: [
            lvis.ann_to_mask(one) for one in lvis.load_anns(lvis.get_ann_ids(img_ids=[image["id"]]))
        ]
        for image in json.loads((tmp_path / "lvis.json").read_text())["images"]
    }
    iou = lowest_iou(found)
    record("lvis", "lvis", "`LVIS(file)`, `ann_to_mask`", iou)
    assert iou == 1.0
