"""Every other format against closed forms: read back with what is independent of the writer."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from export_builders import (
    CATEGORIES,
    FULL,
    HW,
    MASKS,
    NAMES,
    PARTS,
    RING,
    write_images,
)
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ovsam_cli.outputs.brush_runs import encode_brush_mask
from ovsam_cli.outputs.exporting import Loss
from ovsam_cli.outputs.exports.coco_results import open_coco_results
from ovsam_cli.outputs.exports.cvat import count_row_runs, open_cvat
from ovsam_cli.outputs.exports.image_folder import open_image_folder
from ovsam_cli.outputs.exports.label_studio import LabelStudioOptions, open_label_studio
from ovsam_cli.outputs.exports.labelme import open_labelme
from ovsam_cli.outputs.exports.lvis import open_lvis
from ovsam_cli.outputs.exports.voc import open_voc
from ovsam_cli.outputs.exports.webdataset import open_webdataset
from ovsam_cli.outputs.image_files import ImageSource

DETAILS = Loss("object(s)' prompt, mask quality and other names", 7)
OBJECTS = [(name, row, mask) for name, masks in MASKS.items() for row, mask in enumerate(masks)]


def write(context, results):
    with context as writer:
        for result in results:
            writer.write(result)
    summary = writer.summary
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (4, 7, 1)
    return summary


@pytest.fixture
def results(tmp_path):
    return write_images(tmp_path / "photos")


def test_coco_results(tmp_path, results):
    write(open_coco_results(tmp_path / "r.json", CATEGORIES), results)
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [set(row) for row in rows] == [
        {"image_id", "category_id", "bbox", "score", "segmentation"}
    ] * 7
    for row, (_, number, mask) in zip(rows, OBJECTS, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]).astype(bool), mask)
        assert row["category_id"] == number % 3 + 1
        assert row["bbox"] == coco_mask.toBbox(row["segmentation"]).tolist()


def test_coco_results_of_the_best(tmp_path, results):
    summary = write(open_coco_results(tmp_path / "r.json", CATEGORIES, max_per_image=1), results)
    rows = json.loads((tmp_path / "r.json").read_text())
    assert summary.losses == (
        DETAILS,
        Loss("name(s), which stand as category ids", 7),
        Loss("object(s) beyond the best 1 of their image", 4),
    )
    assert [row["image_id"] for row in rows] == [1, 2, 4]
    for row in rows:
        best = results[row["image_id"] - 1].detections.scores.max()
        assert np.float32(row["score"]) == best


def test_lvis(tmp_path, results):
    write(open_lvis(tmp_path / "lvis.json", CATEGORIES), results)
    data = json.loads((tmp_path / "lvis.json").read_text())
    assert [image["not_exhaustive_category_ids"] for image in data["images"]] == [
        [1, 2], [1, 2], [], [1, 2, 3],
    ]  # fmt: skip
    assert all(image["neg_category_ids"] == [] for image in data["images"])
    counts = [(c["image_count"], c["instance_count"], c["frequency"]) for c in data["categories"]]
    assert counts == [(3, 3, "r"), (3, 3, "r"), (1, 1, "r"), (0, 0, "r")]
    assert len(data["annotations"]) == 7 and "iscrowd" not in data["annotations"][0]


def test_voc(tmp_path, results):
    summary = write(open_voc(tmp_path / "voc", CATEGORIES, ImageSource("copy")), results)
    out = tmp_path / "voc"
    stems = (out / "ImageSets/Main/train.txt").read_text().splitlines()
    assert stems == ["a", "more/b", "more/c d é", "more/deep/d.v2"]
    root = ElementTree.parse(out / "Annotations/more/b.xml").getroot()
    plain = NAMES[1].replace(":", "_")
    assert [one.findtext("name") for one in root.iter("object")] == [NAMES[0], plain]
    assert [one.text for one in root.find("object/bndbox")] == ["27", "9", "55", "37"]
    values = np.asarray(Image.open(out / "SegmentationObject/a.png"))
    for number, mask in enumerate(MASKS["a.png"], start=1):
        np.testing.assert_array_equal(values == number, mask)
    classes = Image.open(out / "SegmentationClass/more/deep/d.v2.png")
    assert classes.mode == "P" and classes.getpalette()[3:6] == [128, 0, 0]
    # The pixel and the two squares lie in the full mask: 1 + 50 of its pixels are theirs.
    lost = "mask pixel(s) covered by a smaller object"
    inside_parts = int((RING & PARTS).sum())
    losses = {loss.what: loss.count for loss in summary.losses}
    assert losses[lost] == 51 + inside_parts and losses["score(s)"] == 7
    assert losses["name(s) with ':', which labelmap.txt cannot hold"] == 3


def test_labelme_masks_are_lossless(tmp_path, results):
    summary = write(open_labelme(tmp_path / "l", CATEGORIES, ImageSource(), "labelme"), results)
    assert summary.losses == (DETAILS,)
    for name, masks in MASKS.items():
        file = json.loads((tmp_path / "l" / name).with_suffix(".json").read_text())
        assert file["imagePath"] == name.rpartition("/")[2] and file["imageData"] is None
        assert (tmp_path / "l" / name).resolve() == (tmp_path / "photos" / name).resolve()
        for shape, mask in zip(file["shapes"], masks, strict=True):
            (left, top), (right, bottom) = shape["points"]
            cut = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
            found = np.zeros(HW, bool)
            found[top : bottom + 1, left : right + 1] = cut
            np.testing.assert_array_equal(found, mask)


def test_x_anylabeling_groups_parts(tmp_path, results):
    images = ImageSource("none")
    summary = write(open_labelme(tmp_path / "l", CATEGORIES, images, "x-anylabeling"), results)
    file = json.loads((tmp_path / "l/more/b.json").read_text())
    assert [shape["group_id"] for shape in file["shapes"]] == [None, 1, 1, 1]
    assert (tmp_path / "l/more" / file["imagePath"]).resolve() == tmp_path / "photos/more/b.jpg"
    assert summary.losses == (DETAILS, Loss("hole(s) that polygons cannot express", 1))
    for name, masks in MASKS.items():
        shapes = json.loads((tmp_path / "l" / name).with_suffix(".json").read_text())["shapes"]
        polygons = [np.ravel(shape["points"]).tolist() for shape in shapes]
        if polygons:
            found = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *HW)))
            hole = found.astype(bool) & ~np.any(masks, axis=0)
            assert hole.sum() == (0 if name != "more/b.jpg" else hole.sum())
            assert found.astype(bool)[np.any(masks, axis=0)].all()


def decode_brush(rle: list[int]) -> np.ndarray:
    """The format of rle-pack, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    position = 0

    def take(size: int) -> int:
        nonlocal position
        position += size
        return int(bits[position - size : position], 2)

    count, value_bits = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        values += (
            [take(value_bits)] * length if is_run else [take(value_bits) for _ in range(length)]
        )
    return np.array(values, np.uint8)


@pytest.mark.parametrize("mask", [RING, PARTS, FULL, ~FULL, np.ones((300, 400), bool)])
def test_brush_runs(mask):
    found = decode_brush(encode_brush_mask(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(found, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


def test_label_studio(tmp_path, results):
    options = LabelStudioOptions(model_version="tiny")
    write(open_label_studio(tmp_path / "ls", CATEGORIES, options), results)
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    assert tasks[2]["data"]["image"] == "/data/local-files/?d=more/c%20d%20%C3%A9.png"
    assert tasks[2]["predictions"][0]["result"] == []
    region = tasks[1]["predictions"][0]["result"][0]
    assert (region["original_width"], region["original_height"]) == (64, 48)
    assert region["value"]["brushlabels"] == ["cat"] and 0 < region["score"] < 1
    view = ElementTree.parse(tmp_path / "ls/interface.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == list(NAMES)


def test_cvat(tmp_path, results):
    write(open_cvat(tmp_path / "cvat", CATEGORIES), results)
    root = ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("name") for image in images] == list(MASKS)
    for image, masks in zip(images, MASKS.values(), strict=True):
        for entry, mask in zip(image.iter("mask"), masks, strict=True):
            left, top, width, height = (
                int(entry.get(k)) for k in ("left", "top", "width", "height")
            )
            runs = [int(run) for run in entry.get("rle").split(",")]
            cut = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            np.testing.assert_array_equal(cut, mask[top : top + height, left : left + width])
    with zipfile.ZipFile(tmp_path / "cvat/coco.zip") as archive:
        (name,) = archive.namelist()
        coco = json.loads(archive.read(name))
    assert name == "annotations/instances_default.json" and len(coco["annotations"]) == 7
    labels = json.loads((tmp_path / "cvat/labels.json").read_text())
    assert [label["name"] for label in labels] == list(NAMES)
    assert not (tmp_path / "cvat/coco.json").exists()


@pytest.mark.parametrize(
    ("mask", "runs"), [([[0, 1], [1, 0]], [1, 2, 1]), ([[1, 1]], [0, 2]), ([[0, 0]], [2])]
)
def test_row_runs(mask, runs):
    assert count_row_runs(np.array(mask, bool)) == runs


def test_image_folder(tmp_path, results):
    write(open_image_folder(tmp_path / "hf", CATEGORIES, ImageSource()), results)
    lines = (tmp_path / "hf/train/metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["file_name"] for row in rows] == list(MASKS)
    assert all((tmp_path / "hf/train" / row["file_name"]).is_file() for row in rows)
    assert rows[3]["objects"]["category"] == list(NAMES[:3])
    assert "| 2 | Jäger &quot;Zaun&quot;: &lt;1&gt; |" in (tmp_path / "hf/README.md").read_text()
    assert rows[2]["objects"]["bbox"] == []


def test_webdataset(tmp_path, results):
    write(open_webdataset(tmp_path / "w", CATEGORIES, ImageSource(), images_per_shard=3), results)
    assert [path.name for path in sorted((tmp_path / "w").glob("*.tar"))] == [
        "00000.tar",
        "00001.tar",
    ]
    with tarfile.open(tmp_path / "w/00000.tar") as shard:
        names = shard.getnames()
        image = shard.extractfile(names[2]).read()
        row = json.load(shard.extractfile(names[3]))
    assert names[:4] == ["000000001.png", "000000001.json", "000000002.jpg", "000000002.json"]
    assert image == (tmp_path / "photos/more/b.jpg").read_bytes()
    assert row["file_name"] == "more/b.jpg" and row["objects"][0]["name"] == "cat"
    write(open_webdataset(tmp_path / "v", CATEGORIES, ImageSource(), images_per_shard=3), results)
    assert (tmp_path / "v/00000.tar").read_bytes() == (tmp_path / "w/00000.tar").read_bytes()
    assert json.loads((tmp_path / "w/names.json").read_text())["2"] == NAMES[1]


@pytest.mark.filterwarnings("ignore")
def test_pycocotools_scores_the_results_list(tmp_path, results, capsys):
    """Our own results against our own data set: everything is found."""
    from pycocotools.cocoeval import COCOeval

    from ovsam_cli.outputs.coco import CocoOptions, CocoWriter

    with CocoWriter(tmp_path / "d.json", categories=CATEGORIES, options=CocoOptions()) as coco:
        for result in results:
            coco.write(result)
    write(open_coco_results(tmp_path / "r.json", CATEGORIES), results)
    truth = COCO(str(tmp_path / "d.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "r.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
