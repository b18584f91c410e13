"""Pages of named drawings: exact masks, a name for every object, files that survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_assets import make_assets
from typer.testing import CliRunner

from ovsam_cli.cli.train import train_app
from ovsam_cli.masks import decode_mask
from ovsam_cli.training.scenes import composed, pages, sources
from ovsam_cli.training.scenes.compose import (
    MIN_VISIBLE_AREA,
    ComposedScene,
    SceneAssets,
    iter_visible_masks,
)
from ovsam_cli.training.scenes.composed import compose_scenes
from ovsam_cli.training.scenes.pages import (
    MAX_OVERLAP,
    compose_numbered_page,
    compose_page,
    page_rng,
)
from ovsam_cli.training.scenes.sidecars import SceneRange, iter_sidecars, write_sidecar

NUM_PAGES = 6


@pytest.fixture(scope="module")
def train_assets() -> SceneAssets:
    return make_assets()


@pytest.fixture(scope="module")
def some_pages(train_assets: SceneAssets) -> list[ComposedScene]:
    return [compose_page(train_assets, page_rng(3, "train", index)) for index in range(NUM_PAGES)]


def test_page_is_a_function_of_seed_and_index(
    train_assets: SceneAssets, some_pages: list[ComposedScene]
) -> None:
    again = compose_page(train_assets, page_rng(3, "train", 4))
    np.testing.assert_array_equal(some_pages[4].rgb, again.rgb)
    assert len(again.objects) == len(some_pages[4].objects)
    for first, second in zip(some_pages[4].objects, again.objects, strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.mask, second.mask)
    for changed in (page_rng(4, "train", 4), page_rng(3, "val", 4), page_rng(3, "train", 5)):
        other = compose_page(train_assets, changed).rgb
        assert other.shape != again.rgb.shape or (other != again.rgb).any()


def test_every_object_has_name_source_and_a_mask_of_its_own(
    some_pages: list[ComposedScene],
) -> None:
    for page in some_pages:
        assert page.rgb.dtype == np.uint8
        assert max(page.rgb.shape) == 512
        covered = np.zeros(page.rgb.shape[:2], np.int64)
        for found in page.objects:
            assert found.source == f"test/{found.name}"
            assert found.mask.sum() >= MIN_VISIBLE_AREA
            covered += found.mask
        assert covered.max() == 1
    assert {found.name for page in some_pages for found in page.objects} == {"ball", "pencil"}


def test_pages_are_full_of_objects_of_the_sizes_of_photographs(
    some_pages: list[ComposedScene],
) -> None:
    assert min(len(page.objects) for page in some_pages) >= 6
    areas = np.array([found.mask.sum() for page in some_pages for found in page.objects])
    sides = np.sqrt(areas)
    assert sides.max() <= 200
    assert 0.2 < (sides < 32).mean() < 0.75
    assert (sides < 96).mean() > 0.6


def test_masks_lie_on_the_drawings(
    train_assets: SceneAssets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plain ground and drawings of one color each, mask and color are the same thing."""
    monkeypatch.setattr(pages, "photograph", lambda rgb, rng: rgb)
    monkeypatch.setattr(pages, "shade", lambda colors, alpha, light, rng: colors)
    monkeypatch.setattr(pages, "paint", lambda image, *rest: np.asarray(image.convert("RGB")))
    monkeypatch.setattr(
        pages, "sample_surface", lambda bank, rng, hw, photo_share: np.zeros((*hw, 3), np.uint8)
    )
    for index in range(3):
        page = compose_page(train_assets, page_rng(1, "train", index))
        for name, channel in (("ball", 0), ("pencil", 2)):
            masks = [found.mask for found in page.objects if found.name == name]
            masked = np.any([np.zeros(page.rgb.shape[:2], np.bool_), *masks], 0)
            colored = page.rgb[..., channel] > 120
            # Edges are feathered; objects of which too little shows have no mask.
            assert (masked & colored).sum() > 0.96 * masked.sum()
            assert (masked & colored).sum() > 0.9 * colored.sum()


def test_turns_are_small(train_assets: SceneAssets) -> None:
    rng = np.random.default_rng(0)
    drawing = Image.new("RGBA", (40, 160))
    poses = [pages._sample_pose(drawing, rng, 50.0) for _ in range(300)]
    turns = np.array([pose.turn for pose in poses])
    assert abs(turns).max() <= 25.0
    assert turns.min() < -15 and turns.max() > 15
    assert {pose.mirrored for pose in poses} == {True, False}
    means = np.sqrt([pose.width * pose.height for pose in poses])
    assert abs(means - 50).max() < 2
    shown = pages._show(drawing, poses[0])
    assert abs(np.asarray(shown.size) / 2 - poses[0].reach()).max() <= 1.5


def test_places_share_little() -> None:
    rng = np.random.default_rng(2)
    sizes = np.exp(rng.uniform(np.log(16), np.log(200), 40))
    drawing = Image.new("RGBA", (100, 100))
    poses = [pages._sample_pose(drawing, rng, float(size)) for size in sizes]
    placements = pages._plan_places(rng, (384, 512), sizes, poses)
    assert len({one.group for one in placements}) == len(placements) > 10
    reach = np.stack([poses[one.group].reach() for one in placements])
    centers = np.array([one.center_xy for one in placements])
    boxes = np.concatenate((centers - reach, centers + reach), 1)
    shared = pages._shared_parts(boxes, boxes) - np.eye(len(boxes))
    assert shared.max() <= MAX_OVERLAP + 1e-6


def test_hidden_objects_and_tiny_remains_are_left_out() -> None:
    owners = np.full((40, 40), -1, np.int16)
    owners[:10, :10] = 0  # 100 of 1000 pixels: too small a share
    owners[20:30, :10] = 1  # all of it
    owners[35, :20] = 2  # 20 pixels: too few
    found = dict(iter_visible_masks(owners, [1000, 100, 20, 50]))
    assert list(found) == [1]
    assert found[1].sum() == 100


def test_pages_are_written_and_continued(
    tmp_path: Path, train_assets: SceneAssets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composed, "load_scene_assets", lambda sources, split: train_assets)
    done: list[int] = []
    write_sidecar(tmp_path, "000001.jpg", (4, 4), [])  # made before
    for start in (0, 1):
        compose_scenes(
            tmp_path,
            tmp_path,
            SceneRange(3, start, 2),
            compose_numbered_page,
            seed=3,
            split="train",
            on_image_done=done.append,
        )
    assert done == [0, 2]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        "000000.jpg",
        "000002.jpg",
    ]
    first, _, _ = iter_sidecars(tmp_path)
    expected = compose_page(train_assets, page_rng(3, "train", 0))
    assert [one["name"] for one in first["objects"]] == [one.name for one in expected.objects]
    np.testing.assert_array_equal(
        decode_mask(first["objects"][0]["segmentation"]), expected.objects[0].mask
    )
    with Image.open(tmp_path / "images" / "000000.jpg") as image:
        assert (image.height, image.width) == expected.rgb.shape[:2]


def test_command_makes_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "download_sources", lambda folder, on_package_done: None)
    monkeypatch.setattr(composed, "load_scene_assets", lambda folder, split: make_assets(split))
    out = tmp_path / "pages"
    arguments = ["scenes", str(out), "--sources", str(tmp_path), "--kind", "pages", "--count", "1"]
    done = CliRunner().invoke(train_app, arguments)
    assert done.exit_code == 0, done.output
    assert (out / "images" / "000000.jpg").is_file()
    categories = json.loads((out / "instances.json").read_text())["categories"]
    assert {one["name"] for one in categories} == {"ball", "pencil"}
    assert "noto" in (out / "attributions.txt").read_text(encoding="utf-8")
