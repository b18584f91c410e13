"""Figures of a model card: parts with known answers, and one run of the script on a small model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_figures
import torch
from builders import disc_mask
from figure_answers import find_near, read_annotated_set
from figures import KEYS, read_set_figures
from PIL import Image
from small_model import write_iou_checkpoint

from ovsam_cli.errors import InputError
from ovsam_cli.masks import encode_mask

START, END = "<!-- figures -->", "<!-- /figures -->"


@pytest.fixture(scope="module")
def iou_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small model that predicts the IoU of its masks."""
    return write_iou_checkpoint(tmp_path_factory.mktemp("weights") / "small-iou.safetensors")


@pytest.fixture
def scenes(tmp_path: Path) -> str:
    """`scenes=...` with two images of a cat and a dog each, and one image without objects."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(1, 4):
        images.append({"id": number, "file_name": f"{number}.png", "height": 48, "width": 64})
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    for image_id, category, radius in ((1, 5, 4), (1, 7, 12), (3, 5, 9), (3, 7, 15)):
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category,
                "segmentation": encode_mask(disc_mask(radius=radius)),
                "iscrowd": 0,
            }
        )
    categories = [{"id": 5, "name": "cat"}, {"id": 7, "name": "Dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return f"scenes={tmp_path / 'instances.json'}:{tmp_path / 'images'}"


def test_set_with_its_own_names(scenes: str) -> None:
    asked = read_annotated_set(scenes)
    assert asked.vocabulary.names == ("cat", "Dog")
    assert [image.image_id for image in asked.dataset.images] == [1, 3]
    assert asked.true_rows.tolist() == [0, 1, 0, 1]
    assert asked.image_index.tolist() == [0, 0, 1, 1]


def test_set_with_a_vocabulary(scenes: str) -> None:
    """Names are found whatever their case; the first images alone are taken on demand."""
    asked = read_annotated_set(f"{scenes}:coco", max_images=1)
    names = asked.vocabulary.names
    assert [names[row] for row in asked.true_rows] == ["cat", "dog"]


@pytest.mark.parametrize("spec", ["a.json:images", "=a:b", "x=a.json", "x=a:b:c:d", "x=a:"])
def test_wrong_specs(spec: str) -> None:
    with pytest.raises(InputError, match=r"expected NAME=ANNOTATIONS:IMAGES\[:VOCABULARY\]"):
        read_annotated_set(spec)


def test_near_names() -> None:
    """Any synonym will do; a cosine of exactly 0.8 is not above it."""
    names = np.asarray([[[1, 0], [0, 1]], [[0.8, 0.6], [0.8, 0.6]], [[0, -1], [0, -1]]], np.float32)
    others = np.asarray([[[1, 0]], [[-1, 0]]], np.float32)
    assert find_near(names, others).tolist() == [True, False, False]


def test_figures_of_before_are_read() -> None:
    """A file with more figures than are kept now."""
    path = Path(__file__).parents[2] / "benchmarks" / "results"
    (path,) = path.glob("tiny-figures-*.json")
    sets = json.loads(path.read_text())["sets"]
    assert all({*read_set_figures(one).estimates} == {*KEYS} for one in sets)


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["tiny_figures.py", *map(str, arguments)])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # for the tests after this
    tiny_figures.main()


def test_whole_run(
    scenes: str,
    iou_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Measured, printed, written, read again, and put into a card."""
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    card = tmp_path / "card.md"
    card.write_text(f"# Card\n{START}\nold\n{END}\nend\n")
    out = tmp_path / "out"
    common = ("--model", iou_checkpoint, "--speed-images", "1", "--pictures", "scenes")
    run_script(monkeypatch, *common, "--data", scenes, "--out", out, "--card", card)
    printed = capsys.readouterr().out
    assert "scenes: 2 images, 4 objects" in printed
    figures = json.loads((out / "figures.json").read_text())
    estimates = figures["sets"][0]["estimates"]
    error = estimates["box IoU error"]
    assert 0 <= error["low"] <= error["mean"] <= error["high"] <= 1
    assert "center IoU error" in estimates
    assert figures["model"]["file_name"] == iou_checkpoint.name  # no folder of this machine
    assert (out / "failures.jpg").exists()
    text = card.read_text()
    assert text.startswith(f"# Card\n{START}\n\nMeasured on ") and text.endswith(f"{END}\nend\n")
    assert "old" not in text and printed.strip() in text
    card.write_text(f"{START}{END}")
    run_script(monkeypatch, "--figures", out / "figures.json", "--card", card)
    assert printed.strip() in card.read_text()


def test_unknown_picture_set(
    scenes: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="--pictures photos: no --data has that name"):
        run_script(monkeypatch, "--data", scenes, "--pictures", "photos")
