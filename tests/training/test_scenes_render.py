"""Rendered scenes: catalog, arrangement, EXR reader and cutting, none of which needs Blender."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from ovsam_cli.errors import InputError
from ovsam_cli.training.scenes.arrange import arrange
from ovsam_cli.training.scenes.catalog import (
    FurnitureModel,
    read_catalog,
    read_places,
    select_models,
    unpack_models,
    write_attributions,
)
from ovsam_cli.training.scenes.exr import MAGIC, read_channels
from ovsam_cli.training.scenes.layout import Bounds, Camera, Placement, Stage, drop_small, overlaps
from ovsam_cli.training.scenes.photo import develop, encode_jpeg
from ovsam_cli.training.scenes.render import cut_objects

CATALOG = """license=Creative Commons Attribution 3.0 license
name#1=Chair
category#1=Office
model#1=/lib/chair/chair.obj
width#1=50
depth#1=60
height#1=90.5
creator#1=Ann
name#2=Wall switch \\u20ac
model#2=/lib/switch/switch.obj
width#2=8
depth#2=1
height#2=8
name#3=Table
model#3=/lib/table/table.obj
width#3=160
depth#3=80
height#3=75
"""


def make_model(
    number: int, name: str, place: str, size: tuple[float, float, float]
) -> FurnitureModel:
    return FurnitureModel(
        model_id=f"lib/{name}{number}",
        catalog_name=name,
        name=name,
        place=place,
        obj_path=Path("none.obj"),
        size=size,
        rotation=(1, 0, 0, 0, 1, 0, 0, 0, 1),
        elevation=0.0,
        creator="Ann",
        license_name="CC0",
    )


def make_models() -> list[FurnitureModel]:
    kinds = [
        ("dining table", "table", (1.6, 0.8, 0.75)),
        ("chair", "seat", (0.5, 0.55, 0.9)),
        ("couch", "floor", (2.0, 0.9, 0.8)),
        ("cabinet", "wall", (0.9, 0.4, 1.8)),
        ("person", "person", (0.5, 0.4, 1.7)),
        ("cat", "pet", (0.2, 0.5, 0.4)),
        ("car", "vehicle", (1.8, 4.4, 1.5)),
        ("bicycle", "cycle", (0.5, 1.7, 0.9)),
        ("bench", "street", (1.5, 0.5, 0.8)),
        ("tree", "tree", (4.0, 4.0, 6.0)),
        ("cup", "top", (0.09, 0.09, 0.1)),
    ]
    return [make_model(number, *kind) for number in range(3) for kind in kinds]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    library = tmp_path / "sweethome3d-furniture" / "Scopia"
    for name in ("chair", "switch", "table"):
        folder = library / "lib" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.obj").write_text("v 0 0 0\n")
    (library / "lib" / "table" / "table.mtl").write_text("newmtl a\nmap_Kd missing.jpg\n")
    (library / "PluginFurnitureCatalog.properties").write_text(CATALOG, encoding="latin-1")
    (library.parent / "done").touch()
    return tmp_path


def test_catalog_keeps_named_and_complete_models(sources: Path) -> None:
    (model,) = read_catalog(unpack_models(sources))
    assert (model.name, model.place, model.creator) == ("chair", "seat", "Ann")
    assert model.size == pytest.approx((0.5, 0.6, 0.905))
    assert model.license_name == "Creative Commons Attribution 3.0"


def test_attributions_name_creator_and_licence(sources: Path, tmp_path: Path) -> None:
    text = write_attributions(sources, tmp_path / "out").read_text()
    assert "Scopia/chair\tchair\tAnn\tCreative Commons Attribution 3.0\t" in text


def test_missing_package_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt-get download sweethome3d-furniture"):
        unpack_models(tmp_path)


def test_splits_share_no_model() -> None:
    models = [make_model(number, "chair", "seat", (1, 1, 1)) for number in range(300)]
    train, val = select_models(models, "train"), select_models(models, "val")
    assert len(train) + len(val) == 300
    assert 15 < len(val) < 65
    assert not {model.model_id for model in train} & {model.model_id for model in val}


def test_place_table_is_lower_case_and_has_no_empty_cell() -> None:
    places = read_places()
    assert len(places) > 400
    for catalog_name, entries in places.items():
        assert catalog_name == catalog_name.lower()
        assert all(name and name == name.lower() and place for name, place in entries)


def test_turned_boxes_overlap_only_when_they_do() -> None:
    model = make_model(0, "couch", "floor", (2.0, 0.5, 1.0))
    first = Placement(model, 0, 0, 0, 0, model.size)
    beside = Placement(model, 0, 0.6, 0, 0, model.size)
    across = Placement(model, 0, 0.6, 0, math.pi / 2, model.size)
    above = Placement(model, 0, 0, 1.0, 0, model.size)
    assert not overlaps(first, beside)
    assert overlaps(first, across)
    assert not overlaps(first, above)


@pytest.mark.parametrize("kind", ["room", "table", "outdoor"])
def test_arrangement_is_reproducible_and_free_of_collisions(kind: str) -> None:
    stages = [arrange(kind, make_models(), np.random.default_rng(seed)) for seed in (7, 7)]
    assert stages[0].placements == stages[1].placements
    assert len(stages[0].placements) >= 5
    placements = stages[0].placements
    pairs = [(a, b) for number, a in enumerate(placements) for b in placements[:number]]
    assert not any(overlaps(a, b) for a, b in pairs)


def test_small_things_stand_on_what_the_probe_finds() -> None:
    camera = Camera(height=1.5, pitch=-0.3, roll=0.0, horizontal_fov=1.0)
    bounds = Bounds(-3, 3, 5, 2.5, True)
    stage = Stage(bounds, camera, make_models(), np.random.default_rng(0))
    added = drop_small(stage, lambda x, y, w, d, yaw, start, height: 0.25, 10, 4.0)
    assert added >= 5
    assert len(stage.placements) == added
    assert all(placed.z == 0.25 and placed.model.name == "cup" for placed in stage.placements)
    assert drop_small(stage, lambda *_: None, 10, 4.0) == 0


def test_cut_objects_drops_specks() -> None:
    camera = Camera(height=1.5, pitch=-0.3, roll=0.0, horizontal_fov=1.0)
    stage = Stage(Bounds(-3, 3, 5, 2.5, True), camera, [], np.random.default_rng(0))
    for number, model in enumerate(make_models()[:3]):
        stage.placements.append(Placement(model, number, 2, 0, 0, model.size))
    ids = np.zeros((40, 40), dtype=np.int32)
    ids[:20, :20] = 1
    ids[30:35, 30:35] = 2
    (found,) = cut_objects(ids, stage)
    assert found.name == "dining table"
    assert found.source == "sweethome3d/lib/dining table0"
    assert found.mask.sum() == 400


def write_exr(path: Path, parts: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    headers, offsets_size, chunks = b"", 0, []
    for number, (name, channels) in enumerate(parts):
        height, width = next(iter(channels.values())).shape
        listing = b"".join(
            key.encode() + b"\0" + struct.pack("<iiii", 2, 0, 1, 1) for key in channels
        )
        window = struct.pack("<4i", 0, 0, width - 1, height - 1)
        for key, kind, value in (
            ("channels", "chlist", listing + b"\0"),
            ("compression", "compression", b"\0"),
            ("dataWindow", "box2i", window),
            ("name", "string", name.encode()),
        ):
            headers += f"{key}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
        headers += b"\0"
        offsets_size += 8 * height
        for row in range(height):
            data = b"".join(values[row].astype("<f4").tobytes() for values in channels.values())
            chunks.append(struct.pack("<iii", number, row, len(data)) + data)
    head = struct.pack("<ii", MAGIC, 2 | 0x1000) + headers + b"\0"
    at, table = len(head) + offsets_size, b""
    for chunk in chunks:
        table += struct.pack("<Q", at)
        at += len(chunk)
    path.write_bytes(head + table + b"".join(chunks))


def test_multi_part_exr_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = {band: rng.random((3, 5)).astype(np.float32) for band in "ABGR"}
    ids = {"X": np.arange(8, dtype=np.float32).reshape(2, 4)}
    write_exr(tmp_path / "a.exr", [("layer.Combined", image), ("layer.IndexOB", ids)])
    channels = read_channels(tmp_path / "a.exr")
    assert len(channels) == 5
    np.testing.assert_array_equal(channels["layer.Combined.G"], image["G"])
    np.testing.assert_array_equal(channels["layer.IndexOB.X"], ids["X"])


def test_not_an_exr(tmp_path: Path) -> None:
    (tmp_path / "a.exr").write_bytes(b"GIF89a..")
    with pytest.raises(InputError, match="not an OpenEXR file"):
        read_channels(tmp_path / "a.exr")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_developed_picture_is_neither_black_nor_white(scale: float) -> None:
    rng = np.random.default_rng(0)
    radiance = (rng.gamma(2.0, 1.0, (32, 48, 3)) * scale).astype(np.float32)
    picture = develop(radiance, rng)
    assert picture.shape == (32, 48, 3) and picture.dtype == np.uint8
    assert 40 < picture.mean() < 215
    assert encode_jpeg(picture, rng)[:2] == b"\xff\xd8"
