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
    masks.unlink()
    with pytest.raises(InputError, match=r"1 of 2 images have no masks.*sa_0\.json"):
        Sa1bSet(tmp_path)


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
