"""`ovsam label` with a model that predicts the IoU of its masks, and with one that does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_model import write_iou_checkpoint
from typer.testing import Result

from ovsam_cli.labelling.options import GridOptions, LabelOptions

Ovsam = Callable[..., Result]


@pytest.fixture(scope="module")
def iou_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_iou_checkpoint(tmp_path_factory.mktemp("weights") / "small-iou.safetensors")


@pytest.fixture
def label(ovsam: Ovsam, photos: Path, tmp_path: Path) -> Ovsam:
    """`ovsam label OUT --model ...` for two photos and two names."""

    def run(out: Path, model: Path, *more: str | Path) -> Result:
        return ovsam(
            *("label", photos, "--vocab", "cat, dog", "--devices", "cpu"),
            *("--model", model, "--out", out, *more),
        )

    return run


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A box and two lone points."""
    path = tmp_path / "prompts.json"
    images = [
        {"file_name": "a.jpg", "boxes": [[5, 5, 40, 50]], "points": [[40, 30]]},
        {"file_name": "more/b.png", "points": [[25, 45]]},
    ]
    path.write_text(json.dumps({"images": images}))
    return path


def read(out: Path, name: str = "annotations.json") -> Any:
    return json.loads((out / name).read_text())


def test_every_object_has_its_predicted_iou(
    label: Ovsam, iou_checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = label(out, iou_checkpoint, "--prompts", prompts)
    assert result.exit_code == 0, result.output
    found = [row["attributes"]["predicted_iou"] for row in read(out)["annotations"]]
    assert len(found) >= 2 and all(0.5 < value < 1.3 for value in found)
    assert len(set(found)) == len(found)
    run = read(out, "run.json")
    assert run["weights"]["predicts_iou"] is True
    assert run["options"]["min_predicted_iou"] is None  # prompts: nothing is cut
    cut = sorted(found)[-1]
    label(tmp_path / "cut", iou_checkpoint, "--prompts", prompts, "--min-predicted-iou", cut)
    kept = read(tmp_path / "cut")["annotations"]
    assert [row["attributes"]["predicted_iou"] for row in kept] == [cut]


def test_without_the_head_there_is_no_such_value(
    label: Ovsam, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert label(out, checkpoint, "--prompts", prompts).exit_code == 0
    assert "predicted_iou" not in (out / "annotations.json").read_text()
    run = read(out, "run.json")
    assert run["weights"]["predicts_iou"] is False
    assert run["options"]["min_predicted_iou"] is None
    assert "predicted_iou" not in (out / ".ovsam" / "manifest.json").read_text()


def test_grid_orders_and_filters_by_predicted_iou(
    label: Ovsam, iou_checkpoint: Path, tmp_path: Path
) -> None:
    grid = ("--grid", "4", "--min-stability", "0")
    out = tmp_path / "all"
    result = label(out, iou_checkpoint, *grid, "--min-predicted-iou", "0")
    assert result.exit_code == 0, result.output
    by_image: dict[int, list[float]] = {}
    for row in read(out)["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row["attributes"]["predicted_iou"])
    assert by_image and all(ious == sorted(ious, reverse=True) for ious in by_image.values())
    assert label(tmp_path / "default", iou_checkpoint, *grid).exit_code in (0, 5)
    assert read(tmp_path / "default", "run.json")["options"]["min_predicted_iou"] == 0.88
    found = [
        row["attributes"]["predicted_iou"] for row in read(tmp_path / "default")["annotations"]
    ]
    assert all(value >= 0.88 for value in found)
    refused = label(tmp_path / "default", iou_checkpoint, *grid, "--min-predicted-iou", "0.5")
    assert refused.exit_code == 2
    assert "min_predicted_iou: was 0.88, now 0.5" in refused.stderr


def test_filter_for_a_model_without_the_head_is_exit_2(
    label: Ovsam, checkpoint: Path, tmp_path: Path
) -> None:
    result = label(tmp_path / "out", checkpoint, "--grid", "4", "--min-predicted-iou", "0.8")
    assert result.exit_code == 2
    assert "'small' does not predict the IoU" in result.stderr
    assert "--iou-head" in result.stderr and "--min-stability" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_refusal_names_the_known_models_that_have_the_head(
    label: Ovsam, checkpoint: Path, iou_checkpoint: Path, tmp_path: Path
) -> None:
    """Whatever lies in the cache under a known name."""
    converted = tmp_path / "cache" / "models" / "rn50x16.safetensors"
    converted.parent.mkdir(parents=True)
    converted.write_bytes(iou_checkpoint.read_bytes())
    result = label(tmp_path / "out", checkpoint, "--min-predicted-iou", "0.8")
    assert result.exit_code == 2
    assert "of the known models tiny, rn50x16" in result.stderr


def test_default_cut_is_that_of_the_grid_and_of_models_with_the_head() -> None:
    grid, prompted = LabelOptions(grid=GridOptions()), LabelOptions()
    assert grid.predicted_iou_cut(0.88) == 0.88
    assert grid.predicted_iou_cut(None) is None
    assert prompted.predicted_iou_cut(0.88) is None
    assert LabelOptions(min_predicted_iou=0.5).predicted_iou_cut(0.88) == 0.5
    assert (grid.stability_cut(0.9), prompted.stability_cut(0.9)) == (0.9, 0.0)
