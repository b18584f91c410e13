"""`--dry-run`: counts that are true, and estimates from what was measured or none at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from ovsam_cli.labelling.forecast import MEASURED, MeasuredCosts, make_forecast
from ovsam_cli.labelling.options import GridOptions, LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import plan_run
from ovsam_cli.labelling.shards import Shard

ROOT = Path(__file__).parent.parent.parent
GRID = LabelOptions(grid=GridOptions(points_per_side=4))


def request(photos: Path, out: Path, **more: object) -> LabelRequest:
    asked = {"images": (str(photos),), "vocabulary": "cat, dog", "out": out, "model": "tiny"}
    return LabelRequest(**{**asked, "options": GRID, "devices": "cpu", **more})


def test_counts(photos: Path, tmp_path: Path) -> None:
    found = make_forecast(plan_run(request(photos, tmp_path / "out")))
    assert (found.num_images, found.num_prompts, found.num_finished) == (2, 32, 0)
    assert (found.num_batches, found.batch_size, found.devices) == (2, 1, ("cpu",))
    assert not (tmp_path / "out").exists()


def test_shards_share_the_work(photos: Path, tmp_path: Path) -> None:
    plans = [plan_run(request(photos, tmp_path, shard=Shard(index, 2))) for index in range(2)]
    found = [make_forecast(plan) for plan in plans]
    assert [one.num_images for one in found] == [1, 1]
    assert [one.num_prompts for one in found] == [16, 16]


def test_finished_images_are_left_out(
    ovsam: Callable[..., Result], checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    arguments = ("label", photos, "--vocab", "cat, dog", "--grid", "2", "--model", checkpoint)
    assert ovsam(*arguments, "--out", tmp_path / "out").exit_code in (0, 5)
    done = ovsam(*arguments, "--out", tmp_path / "out", "--dry-run")
    assert "2 finished already, 0 images to label" in done.stdout
    assert "no estimate of time and memory" in done.stdout and "was not measured" in done.stdout
    again = ovsam(*arguments, "--out", tmp_path / "out", "--dry-run", "--restart")
    assert "finished already" not in again.stdout


def test_an_estimate_grows_with_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = MeasuredCosts(5.0, 0.5, 0.1, 0.01, 1.0, "somewhere.json")
    monkeypatch.setitem(MEASURED, ("tiny", "cpu"), costs)
    few = make_forecast(plan_run(request(photos, tmp_path)))
    options = LabelOptions(grid=GridOptions(points_per_side=32))
    many = make_forecast(plan_run(request(photos, tmp_path, options=options)))
    assert few.core_seconds is not None and many.core_seconds is not None
    assert 0 < few.core_seconds < many.core_seconds
    assert few.core_seconds == pytest.approx(5 + 2 * 0.5 + 32 * 0.01)
    assert "estimate: " in few.describe() and few.source in few.describe()


def test_a_device_of_another_machine_is_planned_with_a_notice(photos: Path, tmp_path: Path) -> None:
    found = make_forecast(plan_run(request(photos, tmp_path, devices="cuda:7,cuda:8")))
    assert found.devices == ("cuda:7,cuda:8",) and found.batch_size == 8
    assert found.core_seconds is None and "not on this machine" in found.notices[0]


def test_json_plan(ovsam: Callable[..., Result], photos: Path, tmp_path: Path) -> None:
    arguments = ("label", photos, "--vocab", "coco", "--model", "tiny", "--devices", "cpu")
    done = ovsam(*arguments, "--out", tmp_path / "out", "--dry-run", "--json")
    (line,) = done.stdout.splitlines()
    plan = json.loads(line)
    assert plan["event"] == "plan" and plan["num_images"] == 2
    assert plan["num_categories"] == 80 and plan["devices"] == ["cpu"]


@pytest.mark.parametrize(("model", "kind"), MEASURED)
def test_the_table_is_what_was_measured(model: str, kind: str) -> None:
    costs = MEASURED[model, kind]
    found = json.loads((ROOT / costs.source).read_text())[f"{model} on {kind}"]
    assert costs.start == pytest.approx(found["start_seconds"], rel=0.02)
    assert costs.image == pytest.approx(found["image_seconds"], rel=0.02)
    assert costs.prompt == pytest.approx(found["prompt_seconds"], rel=0.02)
    # A grid of 16 x 16 points; what an image costs without them was measured with one box.
    points = found["grid_image_seconds"] - found["image_seconds"]
    assert costs.point == pytest.approx(points / 16**2, rel=0.02)
    assert costs.memory_gib == pytest.approx(found["memory_gib"], rel=0.05)
