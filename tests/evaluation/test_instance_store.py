"""Annotated images one at a time: the same objects as all at once, and folders of SA-1B."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coco_toys import HW, entry, square, write_coco
from scene_builders import write_scenes

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.evaluation.dataset_places import check_images, find_dataset
from ovsam_cli.evaluation.datasets import read_instances
from ovsam_cli.evaluation.instance_store import InstanceStore, Sa1bStore


def test_same_objects_as_at_once(tmp_path: Path) -> None:
    """Annotations in any order; crowds and masks without pixels are left out."""
    objects = [
        entry(3, 2, 2, square(10, 10, 40)),
        entry(1, 1, 1, square(5, 5, 20)),
        entry(4, 2, 1, square(0, 0, 9), iscrowd=1),
        entry(5, 2, 1, square(0, 0, 0)),
        entry(2, 1, 2, square(40, 10, 30)),
    ]
    file = write_coco(tmp_path / "i.json", objects, num_images=3)
    store = InstanceStore(file, tmp_path)
    wanted = read_instances(file, tmp_path)
    assert [record.image_id for record in store.records] == [1, 2]
    assert [store.load(row) for row in (0, 1)] == [*wanted.images[:2]]
    assert store.load(0) == wanted.images[0]  # again, behind a later one
    assert store.category_names == {1: "cat", 2: "dog"}


def test_only_some_names_and_images(tmp_path: Path) -> None:
    objects = [entry(n, n, 1 + n % 2, square(5, 5, 20)) for n in range(1, 5)]
    file = write_coco(tmp_path / "i.json", objects, num_images=4)
    kept = InstanceStore(file, tmp_path, keep=frozenset({1}))
    assert [record.image_id for record in kept.records] == [2, 4]
    first = InstanceStore(file, tmp_path, keep=frozenset({1}), max_images=1)
    assert [record.image_id for record in first.records] == [2]
    with pytest.raises(InputError, match="no image has an object that counts"):
        InstanceStore(file, tmp_path, keep=frozenset({77}))


def test_broken_masks_name_their_annotation(tmp_path: Path) -> None:
    wrong = entry(8, 1, 1, square(5, 5, 20)) | {"segmentation": {"size": [3, 3], "counts": "9"}}
    store = InstanceStore(write_coco(tmp_path / "i.json", [wrong]), tmp_path)
    with pytest.raises(InputError, match=r"i\.json: annotation 8 cannot be used"):
        store.load(0)


def write_sa1b(folder: Path, name: str = "sa_1") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    height, width = HW
    content = {
        "image": {"height": height, "width": width},
        "annotations": [{"segmentation": entry(1, 1, 1, square(5, 5, 20))["segmentation"]}],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_sa1b(tmp_path: Path) -> None:
    write_sa1b(tmp_path / "sa" / "sa_000020", "sa_7")
    place = find_dataset(str(tmp_path / "sa"))
    assert place.is_sa1b
    store = Sa1bStore(place.annotations)
    (record,) = store.records
    assert record.file_name == "sa_000020/sa_7.jpg"
    (one,) = store.load(0).instances
    assert (one.area, store.category_names) == (400, {})
    (tmp_path / "sa" / "sa_000020" / "sa_7.json").write_text("{}")
    with pytest.raises(ImageError, match="its masks cannot be read"):
        store.load(0)


@pytest.mark.parametrize("layout", ["coco", "lvis", "own", "lvis beside"])
def test_layouts(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders as COCO, LVIS and our scenes have them; `coco` and `lvis` are below data/."""
    monkeypatch.chdir(tmp_path)
    annotations, images, spec = {
        "coco": ("data/coco/annotations/instances_val2017.json", "data/coco/val2017", "coco"),
        "lvis": ("data/lvis/annotations/lvis_v1_val.json", "data/coco", "lvis"),
        "own": ("scenes/instances.json", "scenes/images", "scenes"),
        "lvis beside": ("all/annotations/lvis_v1_val.json", "all", "all"),
    }[layout]
    with pytest.raises(InputError, match=r"no such file|no annotations|neither"):
        find_dataset(spec)
    Path(annotations).parent.mkdir(parents=True)
    Path(annotations).write_text("{}")
    if not Path(images).is_dir():
        with pytest.raises(InputError, match=f"{images}: no such folder"):
            find_dataset(spec)
        Path(images).mkdir(parents=True)
    place = find_dataset(spec)
    assert (place.annotations, place.images) == (Path(annotations), Path(images))


def test_lvis_images_are_in_two_folders(tmp_path: Path) -> None:
    content = json.loads(write_coco(tmp_path / "i.json", []).read_text())
    for image, split in zip(content["images"], ("train2017", "val2017"), strict=True):
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/{split}/{name}"
        (tmp_path / split).mkdir()
    content["annotations"] = [entry(n, n, 1, square(5, 5, 20)) for n in (1, 2)]
    (tmp_path / "i.json").write_text(json.dumps(content))
    store = InstanceStore(tmp_path / "i.json", tmp_path)
    folders = [Path(record.path).relative_to(tmp_path).as_posix() for record in store.records]
    assert folders == ["train2017/1.jpg", "val2017/2.jpg"]
    with pytest.raises(InputError, match=r"2 of 2 images are missing.*train2017/1\.jpg"):
        check_images(store.records, "i.json")


def test_images_beside_the_annotations(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes")
    place = find_dataset(str(tmp_path / "scenes" / "instances.json"))
    assert place.images == tmp_path / "scenes" / "images"
    with pytest.raises(InputError, match="whose images"):
        find_dataset(str(write_coco(tmp_path / "alone.json", [])))
