"""COCO instance files: what is kept, what is left out, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask
from scene_builders import write_scenes

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.datasets import check_image_files, read_instances
from ovsam_cli.masks import decode_mask, encode_mask

Content = dict[str, list[dict[str, object]]]


def make_content() -> Content:
    annotation: dict[str, object] = {
        "id": 5,
        "image_id": 3,
        "category_id": 18,
        "segmentation": encode_mask(disc_mask()),
        "iscrowd": 0,
    }
    return {
        "images": [
            {"id": 3, "file_name": "a.jpg", "height": 48, "width": 64},
            {"id": 9, "file_name": "more/b.jpg", "height": 10, "width": 20},
        ],
        "annotations": [annotation],
        "categories": [{"id": 18, "name": "dog"}],
    }


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_reads_images_objects_and_names(tmp_path: Path) -> None:
    file = write(tmp_path / "i.json", make_content())
    dataset = read_instances(file, tmp_path / "photos")
    first, second = dataset.images
    assert dataset.source == file
    assert dataset.category_names == {18: "dog"}
    assert first.path == tmp_path / "photos" / "a.jpg"
    assert (first.image_id, first.original_hw) == (3, (48, 64))
    assert second.path == tmp_path / "photos" / "more/b.jpg"
    assert second.instances == ()
    (instance,) = first.instances
    assert (instance.annotation_id, instance.category_id) == (5, 18)
    assert (decode_mask(instance.segmentation) == disc_mask()).all()
    assert instance.area == disc_mask().sum()


def test_crowds_and_empty_masks_are_left_out(tmp_path: Path) -> None:
    content = make_content()
    crowd = content["annotations"][0] | {"id": 6, "iscrowd": 1}
    empty = content["annotations"][0] | {"segmentation": encode_mask(np.zeros((48, 64), bool))}
    content["annotations"] += [crowd, empty]
    images = read_instances(write(tmp_path / "i.json", content), tmp_path).images
    assert [one.annotation_id for one in images[0].instances] == [5]


def test_uncompressed_runs(tmp_path: Path) -> None:
    content = make_content()
    runs = {"size": [48, 64], "counts": [48, 4, 48 * 64 - 52]}
    content["annotations"][0]["segmentation"] = runs
    images = read_instances(write(tmp_path / "i.json", content), tmp_path).images
    mask = decode_mask(images[0].instances[0].segmentation)
    assert mask[:4, 1].all() and mask.sum() == 4  # runs go down the columns


def test_folder_layout(tmp_path: Path) -> None:
    dataset = write_scenes(tmp_path / "scenes", num_images=2)
    assert [len(image.instances) for image in dataset.images] == [2, 2]
    assert all(image.path.is_file() for image in dataset.images)


def set_size(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [4, 4], "counts": [16]}


def set_polygon(content: Content) -> None:
    content["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, 9, 4]]


def set_image(content: Content) -> None:
    content["annotations"][0]["image_id"] = 77


def set_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 19


def set_text_id(content: Content) -> None:
    content["annotations"][0]["id"] = "five"


def drop_categories(content: Content) -> None:
    del content["categories"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (set_size, "annotation 5: a mask"),
        (set_polygon, "pairs of numbers"),
        (set_image, "KeyError: 77"),
        (set_category, "19"),
        (set_text_id, "five"),
        (drop_categories, "categories"),
    ],
)
def test_spoiled_files(tmp_path: Path, spoil: Callable[[Content], None], said: str) -> None:
    content = make_content()
    spoil(content)
    with pytest.raises(InputError, match=rf"i\.json: not a COCO instances file.*{said}"):
        read_instances(write(tmp_path / "i.json", content), tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"images": 3, "annotations": []}'])
def test_other_files(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "i.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="not a COCO instances file"):
        read_instances(path, tmp_path)


def test_polygons(tmp_path: Path) -> None:
    """Filled as pycocotools does; what has no area is left out."""
    content = make_content()
    square, line = [[10, 5, 30, 5, 30, 20, 10, 20]], [[1, 1, 9, 9]]
    content["annotations"][0]["segmentation"] = [*square, [40.0, 30, 50, 30, 50, 40]]
    content["annotations"].append(content["annotations"][0] | {"id": 6, "segmentation": line})
    images = read_instances(write(tmp_path / "i.json", content), tmp_path).images
    (instance,) = images[0].instances
    mask = decode_mask(instance.segmentation)
    assert mask[5:20, 10:30].all() and 300 + 40 < mask.sum() == instance.area < 300 + 60


def make_lvis() -> Content:
    content = make_content()
    url = "http://images.cocodataset.org/{}/00000{}.jpg"
    for image, split in zip(content["images"], ("train2017", "val2017"), strict=True):
        del image["file_name"]
        image["coco_url"] = url.format(split, image["id"])
    # LVIS has its annotations before its images.
    return {key: content[key] for key in ("annotations", "images", "categories")}


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("coco", ["coco/train2017/000003.jpg", "coco/val2017/000009.jpg"]),
        ("coco/train2017", ["coco/train2017/000003.jpg", "coco/val2017/000009.jpg"]),
        ("other", ["other/train2017/000003.jpg", "other/val2017/000009.jpg"]),
    ],
)
def test_lvis_files(tmp_path: Path, folder: str, expected: list[str]) -> None:
    for split in ("train2017", "val2017"):
        (tmp_path / "coco" / split).mkdir(parents=True)
    dataset = read_instances(write(tmp_path / "lvis.json", make_lvis()), tmp_path / folder)
    assert [image.path for image in dataset.images] == [tmp_path / one for one in expected]
    assert len(dataset.images[0].instances) == 1


def test_missing_images_are_one_error(tmp_path: Path) -> None:
    """Images without objects are never opened, so they may be missing."""
    dataset = read_instances(write(tmp_path / "i.json", make_content()), tmp_path / "photos")
    with pytest.raises(InputError, match=r"1 of 1 images .* expected at .*photos/a\.jpg"):
        check_image_files(dataset)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    check_image_files(dataset)
