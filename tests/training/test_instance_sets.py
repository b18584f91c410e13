"""Training sets: packed arrays give back what was in, names find their rows."""

import pickle
from pathlib import Path

import numpy as np
from builders import disc_mask
from scene_builders import write_scenes

from ovsam_cli.evaluation.datasets import Instance, InstanceDataset, InstanceImage
from ovsam_cli.masks import encode_mask
from ovsam_cli.training.instance_sets import PackedSet, match_categories
from ovsam_cli.vocabulary import Category, Vocabulary, read_vocabulary


def test_packed_objects_come_back(tmp_path: Path) -> None:
    dataset = write_scenes(tmp_path / "scenes")
    rows = {category_id: 10 * category_id for category_id in dataset.category_names}
    packed = pickle.loads(pickle.dumps(PackedSet(dataset, rows)))
    assert len(packed) == len(dataset.images)
    for number, image in enumerate(dataset.images):
        found = packed.read(number)
        assert found.path == packed.path(number) == image.path
        assert found.original_hw == image.original_hw
        assert list(found.segmentations) == [one.segmentation for one in image.instances]
        assert found.labels.tolist() == [10 * one.category_id for one in image.instances]


def test_other_categories_and_bare_images_are_left_out() -> None:
    one, two = (Instance(n, n, encode_mask(disc_mask(radius=5 + n)), 9) for n in (1, 2))
    images = tuple(
        InstanceImage(Path(f"{n}.png"), n, (48, 64), objects)
        for n, objects in enumerate([(one, two), (two,), (), (one,)])
    )
    packed = PackedSet(InstanceDataset(Path("x"), images, {1: "a", 2: "b"}), {1: -1})
    assert [packed.path(n).name for n in range(len(packed))] == ["0.png", "3.png"]
    assert packed.read(0).segmentations == (one.segmentation,)
    assert packed.labels.tolist() == [-1, -1]
    empty = PackedSet(InstanceDataset(Path("x"), images, {}), {})
    assert len(empty) == 0


def test_names_find_their_rows() -> None:
    vocabulary = Vocabulary(
        "v",
        (
            Category(1, "Traffic_Light", ("traffic light", "stoplight")),
            Category(2, "stoplight", ("stoplight",)),
            Category(3, "cup", ("cup", "mug")),
        ),
    )
    names = {7: "traffic light", 8: "STOPLIGHT", 9: "mug", 10: "teapot", 11: "glass_or_cup"}
    found = match_categories(names, vocabulary)
    assert found.rows == {7: 0, 8: 1, 9: 2, 10: -1, 11: 2}
    assert found.unknown == ("teapot",)


def test_base_categories_of_the_published_splits() -> None:
    coco = read_vocabulary("coco")
    names = {row: category.name for row, category in enumerate(coco.categories)}
    found = match_categories(names, coco, coco)
    assert len(found.rows) == 48
    assert all(row == category_id for category_id, row in found.rows.items())
    lvis = read_vocabulary("lvis")
    names = {row: category.name for row, category in enumerate(lvis.categories)}
    kept = match_categories(names, lvis, lvis).rows
    assert len(kept) == 866
    assert {lvis.categories[row].frequency for row in kept} == {"c", "f"}
    assert (np.asarray([*kept.values()]) >= 0).all()
