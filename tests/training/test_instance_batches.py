"""Micro-batches: functions of (seed, number), whole epochs, bad images replaced."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_builders import write_scenes

from ovsam_cli.errors import InputError
from ovsam_cli.training.augmentation import AugmentationOptions
from ovsam_cli.training.instance_batches import (
    InstanceBatch,
    InstanceSource,
    SourceOptions,
    WeightedSet,
)
from ovsam_cli.training.instance_sets import PackedSet
from ovsam_cli.training.prompt_sampling import MixedPrompts, PublishedPrompts
from ovsam_cli.training.region_sampling import RegionOptions

SIZE, NUM_CATEGORIES = 96, 2
GENTLE = AugmentationOptions(SIZE, (0.9, 1.1), is_exact=False)
OPTIONS = SourceOptions(
    (127.5,) * 3,
    (127.5,) * 3,
    NUM_CATEGORIES,
    augmentation=GENTLE,
    prompts=MixedPrompts(num_prompts=6),
    seed=3,
)


@pytest.fixture
def scenes(tmp_path: Path) -> PackedSet:
    return PackedSet(write_scenes(tmp_path / "scenes", num_images=5), {1: 0, 2: 1})


def flatten(batch: InstanceBatch) -> list[torch.Tensor]:
    found = [batch.pixels, batch.masks, batch.mask_index, batch.labels, batch.boxes_xyxy]
    found += [batch.prompts.point_coords, batch.prompts.model_boxes_xyxy]
    if batch.regions is not None:
        found += [batch.regions.boxes_xyxy, batch.regions.labels, batch.regions.image_index]
    return found


def test_batches_depend_on_seed_and_number_alone(scenes: PackedSet) -> None:
    options = replace(OPTIONS, regions=RegionOptions())
    first, second = (InstanceSource([WeightedSet(scenes)], options) for _ in range(2))
    wanted = [flatten(first[index]) for index in range(3)]
    for index in (2, 0, 1):
        again = flatten(second[index])
        assert all(map(torch.equal, again, wanted[index]))
    other = InstanceSource([WeightedSet(scenes)], replace(options, seed=4))
    assert not torch.equal(other[0].pixels, wanted[0][0])


def test_a_batch_fits_together(scenes: PackedSet) -> None:
    batch = InstanceSource([WeightedSet(scenes)], OPTIONS)[0]
    assert batch.num_images == 2 and batch.pixels.shape == (2, 3, SIZE, SIZE)
    assert batch.prompts.image_index.tolist() == [0] * 6 + [1] * 6
    assert batch.regions is None and batch.skipped == ()
    for row, (x0, y0, x1, y1) in enumerate(batch.boxes_xyxy.long().tolist()):
        mask = batch.masks[batch.mask_index[row]]
        assert bool(mask[y0:y1, x0:x1].sum() == mask.sum())
        height, width = batch.input_hw[int(batch.prompts.image_index[row])]
        assert x1 <= width and y1 <= height
    for pixels, (height, width) in zip(batch.pixels, batch.input_hw, strict=True):
        assert not bool(pixels[:, height:].any()) and not bool(pixels[:, :, width:].any())


def test_one_set_is_gone_through_in_epochs(
    scenes: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InstanceSource([WeightedSet(scenes)], replace(OPTIONS, images_per_batch=1))
    numbers: list[int] = []
    read = scenes.read
    monkeypatch.setattr(scenes, "read", lambda number: numbers.append(number) or read(number))
    for index in range(10):
        source[index]
    assert sorted(numbers[:5]) == sorted(numbers[5:]) == [0, 1, 2, 3, 4]
    assert numbers[:5] != numbers[5:]


def test_sets_are_drawn_by_weight(tmp_path: Path) -> None:
    sets = [
        WeightedSet(PackedSet(write_scenes(tmp_path / name), {1: row, 2: row}), weight)
        for row, (name, weight) in enumerate((("one", 1.0), ("two", 3.0), ("none", 0.0)))
    ]
    source = InstanceSource(sets, replace(OPTIONS, images_per_batch=1, num_categories=3))
    drawn = [int(source[index].labels[0]) for index in range(60)]
    assert drawn.count(2) == 0 and 6 <= drawn.count(0) <= 24


def test_unreadable_images_are_replaced_and_told(scenes: PackedSet) -> None:
    bad = scenes.path(2)
    bad.write_bytes(b"no picture")
    source = InstanceSource([WeightedSet(scenes)], replace(OPTIONS, images_per_batch=5))
    batch = source[0]
    assert batch.num_images == 5
    assert {one.path for one in batch.skipped} == {bad}
    assert str(bad) not in batch.skipped[0].reason
    assert len(flatten(source[0])) == len(flatten(batch))
    for number in range(len(scenes)):
        scenes.path(number).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"50 images in a row .*50 could not be read"):
        source[0]


def test_nothing_to_train_on(scenes: PackedSet) -> None:
    with pytest.raises(InputError, match="no image with objects"):
        InstanceSource([WeightedSet(scenes, 0.0)], OPTIONS)
    tiny_objects = replace(OPTIONS, augmentation=replace(GENTLE, min_area=10**6))
    with pytest.raises(InputError, match="show no object of 1000000 pixels"):
        InstanceSource([WeightedSet(scenes)], tiny_objects)[0]


def test_regions_to_name(scenes: PackedSet) -> None:
    options = replace(
        OPTIONS,
        images_per_batch=4,
        regions=RegionOptions(num_noisy=2, num_background=3, max_side=24.0),
    )
    batch = InstanceSource([WeightedSet(scenes)], options)[0]
    assert batch.regions is not None
    boxes, labels = batch.regions.boxes_xyxy, batch.regions.labels
    assert boxes.shape == (len(labels), 4) and set(labels.tolist()) == {0, 1, NUM_CATEGORIES}
    named = labels < NUM_CATEGORIES
    assert int(named.sum()) == 3 * len(batch.masks)
    for box, image in zip(boxes[~named], batch.regions.image_index[~named], strict=True):
        x0, y0, x1, y1 = box.long().tolist()
        own = batch.mask_index[batch.prompts.image_index == image].unique()
        assert float(batch.masks[own].any(dim=0)[y0:y1, x0:x1].float().mean()) < 0.25
    assert bool((batch.regions.image_index.diff() >= 0).all())


def test_objects_without_a_class_are_not_named(tmp_path: Path) -> None:
    scenes = PackedSet(write_scenes(tmp_path / "scenes"), {1: -1, 2: -1})
    options = replace(OPTIONS, regions=RegionOptions(num_background=0))
    batch = InstanceSource([WeightedSet(scenes)], options)[0]
    assert batch.regions is not None and len(batch.regions.labels) == 0
    assert bool((batch.labels == -1).all())


def test_the_published_batch(scenes: PackedSet) -> None:
    options = replace(
        OPTIONS, prompts=PublishedPrompts(), augmentation=AugmentationOptions(SIZE, max_objects=40)
    )
    batch = InstanceSource([WeightedSet(scenes)], options)[1]
    assert int(batch.prompts.has_box.sum()) == 2 * 21
    assert batch.prompts.point_coords.shape == (80, 1, 2)
    assert bool((batch.prompts.model_boxes_xyxy == batch.boxes_xyxy)[batch.prompts.has_box].all())


def test_batches_move(scenes: PackedSet) -> None:
    options = replace(OPTIONS, regions=RegionOptions(), prompts=MixedPrompts(num_prompts=40))
    batch = InstanceSource([WeightedSet(scenes)], options)[0]
    moved = batch.to(torch.device("meta"))
    assert {one.device.type for one in flatten(moved)} == {"meta"}
    assert moved.prompts.has_box.is_meta and moved.input_hw == batch.input_hw
    assert np.all([not one.is_meta for one in flatten(batch)])
