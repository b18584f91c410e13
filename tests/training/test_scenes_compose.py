"""Composed scenes: exact masks, the same scene for the same seed, files that survive a kill."""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scene_assets import make_assets

from ovsam_cli.errors import InputError
from ovsam_cli.masks import decode_mask
from ovsam_cli.training.scenes.clip_art import name_of_file, read_spellings
from ovsam_cli.training.scenes.compose import (
    ComposedScene,
    SceneAssets,
    compose_numbered,
    compose_scene,
    scene_rng,
)
from ovsam_cli.training.scenes.composed import (
    compose_scenes,
    composed_attributions,
    write_composed_attributions,
)
from ovsam_cli.training.scenes.icons import load_icon_sheet, read_concepts
from ovsam_cli.training.scenes.photograph import photograph
from ovsam_cli.training.scenes.placement import plan_scene
from ovsam_cli.training.scenes.sidecars import (
    SceneObject,
    SceneRange,
    assemble_annotations,
    encode_object,
    is_scene_done,
    iter_sidecars,
    write_sidecar,
)
from ovsam_cli.training.scenes.sources import download_sources
from ovsam_cli.training.scenes.sprites import SPRITE_SIZE, is_object_like, render_svg
from ovsam_cli.training.scenes.surfaces import crop_surface, sample_surface


@pytest.fixture(scope="module")
def train_assets() -> SceneAssets:
    return make_assets()


def compose(assets: SceneAssets, index: int) -> ComposedScene:
    return compose_scene(assets, scene_rng(3, assets.split, index))


def test_scene_is_a_function_of_seed_and_index(train_assets: SceneAssets) -> None:
    first, again, other = (compose(train_assets, index) for index in (4, 4, 5))
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert [found.source for found in first.objects] == [found.source for found in again.objects]
    assert first.rgb.shape != other.rgb.shape or (first.rgb != other.rgb).any()


@pytest.mark.parametrize("index", range(6))
def test_masks_fit_the_image_and_do_not_overlap(train_assets: SceneAssets, index: int) -> None:
    scene = compose(train_assets, index)
    assert scene.rgb.dtype == np.uint8
    assert max(scene.rgb.shape) == 512
    covered = np.zeros(scene.rgb.shape[:2], np.int64)
    for found in scene.objects:
        assert found.mask.shape == covered.shape
        covered += found.mask
    assert covered.max(initial=0) <= 1


def test_validation_scenes_name_every_object() -> None:
    assets = make_assets("val")
    scenes = [compose(assets, index) for index in range(4)]
    assert all(found.name for scene in scenes for found in scene.objects)
    assert any(scene.objects for scene in scenes)


def test_training_scenes_have_objects_without_a_name(train_assets: SceneAssets) -> None:
    names = {found.name for index in range(8) for found in compose(train_assets, index).objects}
    assert "" in names
    assert names & {"ball", "pencil"}


def test_planned_sizes_reach_from_tiny_to_large() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([p.size for _ in range(300) for p in plan_scene(rng, (512, 512))])
    assert 0.25 < (sizes < 32).mean() < 0.7
    assert (sizes > 180).mean() > 0.05
    assert sizes.min() >= 5


def test_photograph_moves_no_pixel() -> None:
    """A lone bright square must stay where its mask is."""
    rgb = np.full((64, 64, 3), 40, np.uint8)
    rgb[20:40, 24:44] = 220
    for seed in range(8):
        seen = photograph(rgb, np.random.default_rng(seed)).mean(-1)
        inside = seen > (seen[26:34, 30:38].mean() + seen[:10, :10].mean()) / 2
        expected = rgb[..., 0] > 100
        assert (inside & expected).sum() / (inside | expected).sum() > 0.85


@pytest.mark.parametrize("hw", [(5, 7), (512, 384), (1, 1)])
def test_surfaces_have_the_asked_size(train_assets: SceneAssets, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(12):
        assert sample_surface(train_assets.bank, rng, hw, photo_share=0.3).shape == (*hw, 3)
    assert crop_surface(train_assets.bank.photos[0], rng, hw).shape == (*hw, 3)


def test_full_squares_are_no_objects() -> None:
    rgba = np.full((SPRITE_SIZE, SPRITE_SIZE, 4), 255, np.uint8)
    assert not is_object_like(rgba)
    rgba[:100, :100, 3] = 0
    assert is_object_like(rgba)
    assert not is_object_like(np.zeros_like(rgba))


def test_concepts_have_one_name_each() -> None:
    concepts = read_concepts()
    names = [concept.name for concept in concepts]
    icons = [icon for concept in concepts for icon in concept.icons]
    assert len(set(names)) == len(names)
    assert len(set(icons)) == len(icons), "an icon draws two concepts"
    assert sum(concept.in_demo for concept in concepts) > 200
    assert all(name == name.lower() for name in names)


def test_icon_sheet_is_rendered_once(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    icons = {
        "red-apple": {"body": '<circle cx="8" cy="8" r="7" fill="#c00"/>'},
        "cat-1": {"body": '<path d="M1 1h14v14z"/>'},
        "not-a-concept": {"body": '<circle cx="8" cy="8" r="7"/>'},
    }
    (tmp_path / "icons.json").write_text(json.dumps({"icons": icons, "width": 16, "height": 16}))
    archive = tmp_path / "iconify-json-noto-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as opened:
        opened.add(tmp_path / "icons.json", "package/icons.json")
    sheet = load_icon_sheet(tmp_path, "noto")
    assert sheet.names == ("cat", "apple")
    assert sheet.rgba.shape == (2, SPRITE_SIZE, SPRITE_SIZE, 4)
    assert abs(int((sheet.rgba[1, ..., 3] > 127).sum()) - np.pi * 112**2) < 400
    archive.unlink()
    assert load_icon_sheet(tmp_path, "noto").sources == ("noto/cat-1", "noto/red-apple")


def test_missing_archive_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no iconify-json-noto-\[0-9\]\*\.tgz.*ovsam train scenes"
    ):
        load_icon_sheet(tmp_path, "noto")


def test_broken_archive_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "iconify-json-noto-1.0.0.tgz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"cannot read package/icons\.json"):
        load_icon_sheet(tmp_path, "noto")


def test_missing_tool_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm is not installed"):
        download_sources(tmp_path / "sources")


@pytest.mark.parametrize(("start", "stride"), [(-1, 1), (0, 0)])
def test_senseless_shards_are_refused(start: int, stride: int) -> None:
    with pytest.raises(InputError, match="stride"):
        SceneRange(1, start, stride)


def test_finished_scenes_need_no_archive(tmp_path: Path) -> None:
    write_sidecar(tmp_path, "000000.jpg", (4, 4), [])
    written = compose_scenes(
        tmp_path, tmp_path, SceneRange(1), compose_numbered, seed=0, split="train"
    )
    assert written == 0


def test_attributions_keep_the_held_out_style_apart() -> None:
    train, val = composed_attributions("train"), composed_attributions("val")
    assert not any("openmoji" in line for line in train)
    assert any("openmoji" in line for line in val)
    assert not any("SA" in line for line in train)


def make_object(name: str, top: int) -> SceneObject:
    mask = np.zeros((40, 30), np.bool_)
    mask[top : top + 5, 3:10] = True
    mask[top + 2, 5] = False  # a hole
    return SceneObject(name, f"test/{name}", mask)


def test_sidecar_round_trip(tmp_path: Path) -> None:
    made = make_object("cup", 6)
    write_sidecar(tmp_path, "000007.jpg", (40, 30), [made])
    assert is_scene_done(tmp_path, 7)
    (sidecar,) = iter_sidecars(tmp_path)
    (found,) = sidecar["objects"]
    assert (sidecar["width"], sidecar["height"]) == (30, 40)
    assert found["bbox"] == [3.0, 6.0, 7.0, 5.0]
    assert found["area"] == 34
    np.testing.assert_array_equal(decode_mask(found["segmentation"]), made.mask)
    assert not list(tmp_path.rglob("*.tmp"))


def test_empty_masks_are_left_out(tmp_path: Path) -> None:
    hidden = SceneObject("cup", "test/cup", np.zeros((40, 30), np.bool_))
    assert write_sidecar(tmp_path, "000000.jpg", (40, 30), [hidden])["objects"] == []


def test_sidecars_become_coco(tmp_path: Path) -> None:
    write_sidecar(tmp_path, "000001.jpg", (40, 30), [make_object("spoon", 1), make_object("", 20)])
    write_sidecar(tmp_path, "000000.jpg", (40, 30), [make_object("cup", 9)])
    document = json.loads(assemble_annotations(tmp_path).read_text())
    assert [image["file_name"] for image in document["images"]] == ["000000.jpg", "000001.jpg"]
    assert document["categories"] == [
        {"id": 1, "name": "cup"},
        {"id": 2, "name": "object"},
        {"id": 3, "name": "spoon"},
    ]
    found = document["annotations"]
    assert [a["category_id"] for a in found] == [1, 3, 2]
    assert [a["attributes"]["named"] for a in found] == [True, True, False]
    assert {a["iscrowd"] for a in found} == {0}


def test_no_sidecars_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scene sidecars"):
        assemble_annotations(tmp_path)


def test_broken_sidecar_is_named(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "000003.json").write_text("{")
    with pytest.raises(InputError, match=r"000003\.json: not a scene sidecar"):
        list(iter_sidecars(tmp_path))


def test_mask_type_is_checked() -> None:
    with pytest.raises(ValueError, match="must be"):
        SceneObject("cup", "test/cup", np.zeros((4, 4), np.uint8))
    assert encode_object(make_object("cup", 0))["segmentation"]["size"] == [40, 30]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("pizza_cheese_bw", "pizza"),
        ("red_apple_01", "apple"),
        ("mobile_phone_01", "cell phone"),
        ("potato_chips", ""),  # another thing
        ("architetto_francesco", ""),
        ("01", ""),
    ],
)
def test_clip_art_is_named_only_where_the_file_name_is_plain(stem: str, name: str) -> None:
    assert name_of_file(stem, read_spellings()) == name


def test_attributions_name_the_packages_shown(tmp_path: Path) -> None:
    text = write_composed_attributions(tmp_path, "train").read_text(encoding="utf-8")
    assert "Apache-2.0" in text and "openmoji" not in text
    assert "openmoji" in write_composed_attributions(tmp_path, "val").read_text(encoding="utf-8")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback of ModuleNotFoundError."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"resvg_py is not installed: .*ovsam-cli\[scenes\]"):
        render_svg("<svg/>")
