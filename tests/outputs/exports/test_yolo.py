"""YOLO data sets: labels, the split, images beside, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from export_builders import (
    CATEGORIES,
    DISC,
    HW,
    MASKS,
    NAMES,
    PARTS,
    RING,
    make_result,
    write_images,
)
from pycocotools import mask as coco_mask

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.exporting import Loss
from ovsam_cli.outputs.exports.yolo import (
    YoloOptions,
    choose_split,
    find_label_place,
    join_polygons,
    open_yolo,
)
from ovsam_cli.outputs.image_files import ImageSource


def export(tmp_path, results, **options):
    with open_yolo(tmp_path / "out", CATEGORIES, YoloOptions(**options)) as writer:
        for result in results:
            writer.write(result)
    return writer.summary


def read_labels(folder: Path) -> dict[str, list[list[float]]]:
    return {
        path.relative_to(folder).as_posix(): [
            [float(word) for word in line.split()] for line in path.read_text().splitlines()
        ]
        for path in sorted(folder.rglob("*.txt"))
    }


def fill(values: list[float]) -> np.ndarray:
    polygon = (np.reshape(values, (-1, 2)) * HW[::-1]).ravel().tolist()
    return coco_mask.decode(coco_mask.frPyObjects([polygon], *HW))[..., 0].astype(bool)


def test_layout_and_masks(tmp_path):
    summary = export(tmp_path, write_images(tmp_path / "photos"), val_share=0.0)
    out = tmp_path / "out"
    assert yaml.safe_load((out / "data.yaml").read_text()) == {
        "train": "images/train", "val": "images/train", "names": dict(enumerate(NAMES)),
    }  # fmt: skip
    labels = read_labels(out / "labels" / "train")
    assert list(labels) == ["a.txt", "more/b.txt", "more/c d é.txt", "more/deep/d.v2.txt"]
    assert labels["more/c d é.txt"] == []
    assert (out / "labels/train/more/c d é.txt").read_bytes() == b""
    assert [row[0] for row in labels["more/deep/d.v2.txt"]] == [0, 1, 2]
    for name, masks in MASKS.items():
        link = out / "images" / "train" / name
        assert link.is_symlink() and link.resolve() == (tmp_path / "photos" / name).resolve()
        for values, mask in zip(labels[name.rpartition(".")[0] + ".txt"], masks, strict=True):
            if mask is not RING:
                np.testing.assert_array_equal(fill(values[1:]), mask)
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (4, 7, 1)
    holes = Loss("hole(s) that polygons cannot express", 1)
    details = Loss("object(s)' prompt, mask quality and other names", 7)
    assert summary.losses == (details, Loss("score(s)", 7), holes)


def test_boxes(tmp_path):
    result = make_result("a.png", 1, PARTS, folder=tmp_path)
    summary = export(tmp_path, [result], shapes="boxes", images=NONE)
    assert summary.losses[1:] == (Loss("score(s)", 1), Loss("mask(s)", 1))
    ((kind, x, y, width, height),) = read_labels(tmp_path / "out")["labels/train/a.txt"]
    assert kind == 0
    np.testing.assert_allclose(
        [x * 64, y * 48, width * 64, height * 48], [33, 23, 60, 42], rtol=1e-7
    )


NONE = ImageSource("none")


def test_split_depends_on_name_and_seed_only():
    names = [f"{number}.jpg" for number in range(2000)]
    first = [choose_split(name, 0.25, 0) for name in names]
    assert 430 < first.count("val") < 570
    assert first != [choose_split(name, 0.25, 1) for name in names]
    assert {choose_split(name, 0.0, 0) for name in names} == {"train"}


def test_both_splits_are_named(tmp_path):
    results = [
        make_result(f"{number}.png", number, DISC, folder=tmp_path) for number in range(1, 30)
    ]
    export(tmp_path, results, val_share=0.3, images=NONE)
    labels = read_labels(tmp_path / "out" / "labels")
    assert {name.split("/")[0] for name in labels} == {"train", "val"}
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert (data["train"], data["val"]) == ("images/train", "images/val")


@pytest.mark.parametrize("other", ["a.png", "A.jpg"])
def test_colliding_stems_are_refused_and_nothing_is_left(tmp_path, other):
    """Also those that some file systems take for one."""
    names = ((1, "a.jpg"), (2, other))
    results = [make_result(name, row, DISC, folder=tmp_path) for row, name in names]
    with pytest.raises(InputError, match=rf"labels of 'a\.jpg' and '{other}' would both be"):
        export(tmp_path, results, val_share=0.0, images=NONE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", "", "..\\a.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is no path within a folder"):
        export(tmp_path, [make_result(name, 1, DISC, folder=tmp_path)], images=NONE)


def test_missing_image(tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg: no such image; .*--image-root"):
        export(tmp_path, [make_result("a.jpg", 1, DISC, folder=tmp_path)])


@pytest.mark.parametrize(
    ("image", "place"),
    [
        ("images/train/a.b.jpg", "labels/train/a.b.txt"),
        ("images/val/x/images/a.jpg", "images/val/x/labels/a.txt"),  # ultralytics turns the last
        ("images/train/no_suffix", "labels/train/no_suffix.txt"),
    ],
)
def test_label_place(image, place):
    assert find_label_place(image) == place


def test_joined_parts_cover_the_same_pixels():
    """Also with the parts in another order, where lines cross other parts."""
    squares = [
        [x, y, x + 3, y, x + 3, y + 3, x, y + 3] for x, y in ((1, 1), (20, 4), (9, 1), (30, 30))
    ]
    merged = coco_mask.merge(coco_mask.frPyObjects(squares, *HW))
    joined = coco_mask.frPyObjects([join_polygons(squares)], *HW)
    np.testing.assert_array_equal(coco_mask.decode(joined)[..., 0], coco_mask.decode(merged))
