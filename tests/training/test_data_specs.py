"""`--data`: every layout, and what is said of a wrong one."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask, photo
from PIL import Image
from scene_builders import write_scenes

from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.masks import decode_mask, encode_mask
from ovsam_cli.training.data_specs import (
    DataSpec,
    TrainingData,
    open_training_data,
    parse_data_spec,
)
from ovsam_cli.training.sa1b import Sa1bSet
from ovsam_cli.training.scenes.sidecars import UNNAMED
from ovsam_cli.vocabulary import read_vocabulary


def write_sa1b(folder: Path, count: int = 2) -> Path:
    """Images of 48 x 64 with two masks each, in one of SA-1B's folders."""
    part = folder / "sa_000020"
    part.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(photo(48, 64)).save(part / f"sa_{number}.jpg")
        masks = [encode_mask(disc_mask(center_yx=(24, x))) for x in (15, 45)]
        content = {
            "image": {"image_id": number, "height": 48, "width": 64},
            "annotations": [{"segmentation": mask, "area": 9} for mask in masks],
        }
        (part / f"sa_{number}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scenes", DataSpec(Path("scenes"))),
        ("scenes=2.5", DataSpec(Path("scenes"), None, 2.5)),
        ("a/i.json:b/images", DataSpec(Path("a/i.json"), Path("b/images"))),
        ("a/i.json:b/images=3", DataSpec(Path("a/i.json"), Path("b/images"), 3.0)),
        ("C:\\i.json:C:\\x", DataSpec(Path("C:\\i.json"), Path("C:\\x"))),
    ],
)
def test_specs(text: str, expected: DataSpec) -> None:
    assert parse_data_spec(text) == expected


def open_data(*specs: DataSpec, vocabulary: str | None = None) -> tuple[TrainingData, list[str]]:
    said: list[str] = []
    named = None if vocabulary is None else read_vocabulary(vocabulary)
    return open_training_data(specs, named, "all", said.append), said


def test_the_datas_own_names(tmp_path: Path) -> None:
    for name, names in (("one", ("disc", "bar")), ("two", ("Bar", "ring"))):
        write_scenes(tmp_path / name, names=names)
    data, _ = open_data(DataSpec(tmp_path / "one"), DataSpec(tmp_path / "two", None, 2.0))
    assert data.vocabulary.names == ("disc", "bar", "ring") == data.trained_on
    assert [one.weight for one in data.sets] == [1.0, 2.0]
    assert data.sets[1].images.read(0).labels.tolist() == [1, 2]
    assert data.num_images == 6


def test_unnamed_objects_of_scenes_teach_masks_only(tmp_path: Path) -> None:
    write_scenes(tmp_path / "one", names=("disc", UNNAMED))
    data, _ = open_data(DataSpec(tmp_path / "one"))
    assert data.trained_on == ("disc",)
    assert data.sets[0].images.read(0).labels.tolist() == [0, -1]


def test_names_without_a_row_are_told_once(tmp_path: Path) -> None:
    write_scenes(tmp_path / "one")
    data, said = open_data(DataSpec(tmp_path / "one"), vocabulary="disc,plate,")
    assert data.trained_on == ("disc",)
    assert data.sets[0].images.read(0).labels.tolist() == [0, -1]
    assert sum("1 of 2 names are not in the vocabulary" in text for text in said) == 1


def test_sa1b(tmp_path: Path) -> None:
    data, _ = open_data(DataSpec(write_sa1b(tmp_path)))
    assert len(data.vocabulary) == 0 and data.trained_on == ()
    image = data.sets[0].images.read(1)
    assert image.path.name == "sa_1.jpg" and image.original_hw == (48, 64)
    assert image.labels.tolist() == [-1, -1]
    assert (decode_mask(image.segmentations[0]) == disc_mask(center_yx=(24, 15))).all()


def test_broken_masks_of_sa1b_concern_one_image(tmp_path: Path) -> None:
    images = Sa1bSet(write_sa1b(tmp_path))
    masks = images.path(0).with_suffix(".json")
    content = json.loads(masks.read_text())
    for broken in ("{", "[]", json.dumps(content | {"image": {"height": 1, "width": 64}})):
        masks.write_text(broken)
        with pytest.raises(ImageError, match=r"sa_0\.jpg: "):
            images.read(0)
    assert len(images.read(1).segmentations) == 2


def test_images_of_sa1b_without_masks_are_skipped(tmp_path: Path) -> None:
    """One missing JSON refused the whole set."""
    write_sa1b(tmp_path)
    masks = tmp_path / "sa_000020" / "sa_0.json"
    masks.unlink()
    data, said = open_data(DataSpec(tmp_path))
    assert any("1 images without masks" in text for text in said)
    images = data.sets[0].images
    assert len(images) == 2
    with pytest.raises(ImageError, match=r"sa_0\.jpg: no masks: sa_0\.json is not beside it"):
        images.read(0)
    masks.with_name("sa_1.json").unlink()
    with pytest.raises(InputError, match=r"none of 2 images has masks; .* at .*sa_0\.json"):
        open_data(DataSpec(tmp_path))


def test_folders_that_train_txt_names(tmp_path: Path) -> None:
    """It was ignored: all folders were trained on."""
    write_sa1b(tmp_path)
    (tmp_path / "sa_000020").rename(tmp_path / "sa_000007")
    write_sa1b(tmp_path, 3)
    assert len(Sa1bSet(tmp_path)) == 5
    (tmp_path / "train.txt").write_text("sa_000007\n")
    images = Sa1bSet(tmp_path)
    assert len(images) == 2 and images.path(1) == tmp_path / "sa_000007" / "sa_1.jpg"
    assert len(images.read(1).segmentations) == 2
    (tmp_path / "train.txt").write_text("sa_000008\n")
    with pytest.raises(InputError, match=r"train\.txt:1: .*sa_000008 is no folder"):
        Sa1bSet(tmp_path)


def test_digests_are_of_content_wherever_it_lies(tmp_path: Path) -> None:
    write_scenes(tmp_path / "one")
    write_sa1b(tmp_path / "two")
    specs = [DataSpec(tmp_path / "one"), DataSpec(tmp_path / "two")]
    first, _ = open_data(*specs)
    assert list(first.digests) == [str(spec.place) for spec in specs]
    for name in ("one", "two"):
        (tmp_path / name).rename(tmp_path / f"{name}-moved")
    moved, _ = open_data(
        *(DataSpec(spec.place.with_name(f"{spec.place.name}-moved")) for spec in specs)
    )
    assert [*moved.digests.values()] == [*first.digests.values()]
    (tmp_path / "two-moved" / "sa_000020" / "sa_1.jpg").unlink()
    fewer, _ = open_data(DataSpec(tmp_path / "two-moved"))
    assert [*fewer.digests.values()] != [*first.digests.values()][1:]


def test_a_filter_that_leaves_nothing_is_named(tmp_path: Path) -> None:
    """The published recipe keeps COCO's base categories; on other data it said "no image"."""
    write_scenes(tmp_path / "one")
    message = (
        r"one: of \d+ annotations \(disc, bar\) none .*--classes coco48 keeps.*--classes all to"
    )
    with pytest.raises(InputError, match=message):
        open_training_data([DataSpec(tmp_path / "one")], None, "coco48", print)


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; give a folder with instances\.json"):
        open_data(DataSpec(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"neither .*instances\.json nor sa_\*\.jpg is there"):
        open_data(DataSpec(tmp_path))
    with pytest.raises(InputError, match=r"x\.json: not a COCO instances file: no such file"):
        open_data(DataSpec(tmp_path / "x.json", tmp_path))
    dataset = write_scenes(tmp_path / "scenes")
    dataset.images[1].path.unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are missing"):
        open_data(DataSpec(tmp_path / "scenes"))


def test_masks_are_not_kept_as_arrays(tmp_path: Path) -> None:
    data, _ = open_data(DataSpec(write_scenes(tmp_path / "s").source.parent))
    assert all(isinstance(one.images.read(0).labels, np.ndarray) for one in data.sets)
