"""Temperatures: a known one is found again; label uses the stored one; what is damaged is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scene_builders import write_scenes
from typer.testing import Result

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.calibrate import calibrate_scores
from ovsam_cli.evaluation.calibration_page import describe_fit
from ovsam_cli.evaluation.logit_rows import LogitRow
from ovsam_cli.evaluation.prompted_options import PromptedPlan, PromptedRequest, plan_prompted
from ovsam_cli.evaluation.temperature import (
    LogitFile,
    TemperatureFit,
    compute_loss,
    fit_temperature,
)
from ovsam_cli.labelling.score_calibration import (
    ScoreCalibration,
    calibration_path,
    read_calibration,
    write_calibration,
)
from ovsam_cli.structures import ImageRecord

Ovsam = Callable[..., Result]


def make_logits(temperature: float, num_images: int = 400) -> LogitFile:
    """Names drawn from the softmax of logits, which are then multiplied by the temperature."""
    rng = np.random.default_rng(0)
    found = LogitFile(6)
    for image in range(num_images):
        logits = rng.normal(0, 2, (5, 6)).astype(np.float32)
        logits[:, 5] = -30  # background is never the truth
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows = np.asarray([rng.choice(6, p=one / one.sum()) for one in probs.astype(np.float64)])
        found.append(logits * np.float32(temperature), rows, image % 2)
    return found


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    fit = fit_temperature(make_logits(temperature))
    assert fit.temperature == pytest.approx(temperature, rel=0.08)
    assert fit.after.error < 0.04
    if temperature != 1:
        assert fit.before.error > 3 * fit.after.error
    assert fit.num_instances == 2000


def test_loss_has_its_minimum_there() -> None:
    logits = make_logits(2.0)
    best = fit_temperature(logits).temperature
    losses = [compute_loss(logits, best * factor, leave_out=None) for factor in (0.9, 1, 1.1)]
    assert losses[1] == min(losses)


def test_logits_come_back(tmp_path: Path) -> None:
    """Half precision relative to the best one; an image without objects is no image."""
    found = LogitFile(3)
    found.append(np.float32([[100, 99.5, -5000]]), np.asarray([1]), 1)
    found.append(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 0)
    (values, rows, fold), (nothing, _, _) = found.iter_images()
    assert values.tolist() == [[0, -0.5, -5100]]
    assert (rows.tolist(), fold, len(nothing)) == ([1], 1, 0)


def test_the_file_beside_the_weights(tmp_path: Path) -> None:
    weights = [tmp_path / "w.safetensors"]
    assert read_calibration(weights, "abc") is None
    write_calibration(weights, ScoreCalibration("abc", {"auto": 1.5}, {"auto": {"objects": 9}}))
    write_calibration(weights, ScoreCalibration("abc", {"head": 2.0}, {}))
    found = read_calibration(weights, "abc")
    assert found is not None and found.temperatures == {"auto": 1.5, "head": 2.0}
    assert read_calibration(weights, "of other weights") is None


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": "ovsam-calibration-1", "weights_sha256": "abc", "temperatures": 3}']
    + [
        json.dumps(
            {
                "format": "ovsam-calibration-1",
                "weights_sha256": "abc",
                "temperatures": {"auto": bad},
            }
        )
        for bad in (0, -1, "x", True)
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str) -> None:
    weights = [tmp_path / "w.safetensors"]
    calibration_path(weights).write_text(content)
    with pytest.raises(InputError, match=r"calibration\.json: is not a readable calibration"):
        read_calibration(weights, "abc")


def test_label_takes_what_was_stored(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    """Scores change, names and masks do not; the run's settings say so."""
    model = Path(shutil.copy(checkpoint, tmp_path / "model.safetensors"))
    write_scenes(tmp_path / "scenes", num_images=12, names=("cat", "dog"))
    fixed = ("--model", model, "--devices", "cpu")
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"images": [{"file_name": "1.png", "boxes": [[20, 20, 90, 60]]}]}')

    def label(out: Path) -> list[dict[str, object]]:
        result = ovsam(
            *("label", tmp_path / "scenes" / "images", "--prompts", prompts),
            *("--vocab", "cat, dog", "--out", out, *fixed),
        )
        assert result.exit_code == 0, result.output
        annotations: list[dict[str, object]] = json.loads((out / "annotations.json").read_text())[
            "annotations"
        ]
        return annotations

    before = label(tmp_path / "before")
    calibrate = ("eval", "calibrate", tmp_path / "scenes", *fixed, "--out", tmp_path / "cal")
    dry = ovsam(*calibrate, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert not calibration_path([model]).exists()
    result = ovsam(*calibrate)
    assert result.exit_code == 0, result.output
    assert "stored in" in result.stdout
    fitted = json.loads((tmp_path / "cal" / "metrics.json").read_text())["temperature"]
    after = label(tmp_path / "after")
    assert [one["category_id"] for one in before] == [one["category_id"] for one in after]
    assert [one["segmentation"] for one in before] == [one["segmentation"] for one in after]
    assert [one["score"] for one in before] != [one["score"] for one in after]
    record = json.loads((tmp_path / "after" / "run.json").read_text())
    assert record["options"]["temperature"] == pytest.approx(fitted, abs=1e-3)
    refused = ovsam(
        *("label", tmp_path / "scenes" / "images", "--vocab", "cat, dog", *fixed),
        *("--prompts", prompts, "--out", tmp_path / "before"),
    )
    assert refused.exit_code == 2 and "options.temperature: was not set" in refused.stderr


@pytest.mark.parametrize("is_worse", [True, False])
def test_a_temperature_that_does_not_help(
    ovsam: Ovsam,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_worse: bool,
) -> None:
    """A line on stderr with both figures; it is stored all the same."""
    before, after = (0.1234, 0.2345) if is_worse else (0.2345, 0.1234)

    def fit(logits: LogitFile) -> TemperatureFit:
        found = fit_temperature(logits)
        return replace(
            found,
            before=replace(found.before, error=before),
            after=replace(found.after, error=after),
        )

    monkeypatch.setattr("ovsam_cli.evaluation.calibrate.fit_temperature", fit)
    model = Path(shutil.copy(checkpoint, tmp_path / "model.safetensors"))
    write_scenes(tmp_path / "scenes", num_images=12, names=("cat", "dog"))
    fixed = ("--model", model, "--devices", "cpu", "--out", tmp_path / "out")
    result = ovsam("eval", "calibrate", tmp_path / "scenes", *fixed)
    assert result.exit_code == 0, result.output
    assert calibration_path([model]).exists()
    wanted = "error 0.2345 with it, 0.1234 at temperature 1; too few images (12)?"
    assert (wanted in result.stderr) == is_worse
    assert ("does not help" in result.stderr) == is_worse


def test_too_few_objects(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", names=("cat", "dog"))
    fixed = ("--model", checkpoint, "--out", tmp_path / "out")
    result = ovsam("eval", "calibrate", tmp_path / "scenes", *fixed)
    assert result.exit_code == 2 and "6 objects have a name" in result.stderr


def test_stopped_and_gone_on(checkpoint: Path, tmp_path: Path) -> None:
    """The same fit as without a stop, to the last bit; no image is asked twice."""
    write_scenes(tmp_path / "scenes", num_images=12, names=("cat", "dog"))

    def plan(name: str) -> PromptedPlan:
        scenes = str(tmp_path / "scenes")
        return plan_prompted(
            PromptedRequest(scenes, None, tmp_path / name, model=str(checkpoint), devices="cpu")
        )

    wanted = calibrate_scores(plan("whole"), store=False)
    with pytest.raises(KeyboardInterrupt):
        calibrate_scores(plan("stopped"), store=False, should_stop=lambda: True)
    calls: list[tuple[int, int]] = []
    report = calibrate_scores(
        plan("stopped"), store=False, on_images=lambda done, total: calls.append((done, total))
    )
    assert calls[0] == (1, 12) and len(calls) == 12
    assert json.dumps(describe_fit(report)) == json.dumps(describe_fit(wanted))


def test_page_and_failures(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    """Both reliabilities; an image that cannot be read is named, and the exit code says so."""
    write_scenes(tmp_path / "scenes", num_images=12, names=("cat", "dog"))
    (tmp_path / "scenes" / "images" / "2.png").write_text("no image")
    arguments = ("eval", "calibrate", tmp_path / "scenes", "--model", checkpoint, "--dry-run")
    result = ovsam(*arguments, "--devices", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert "2.png: not an image" in result.stderr.replace(str(tmp_path / "scenes" / "images/"), "")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "Before: temperature 1" in page and "After: cross-fitted" in page
    assert "1 image failed" in page and str(checkpoint.parent) not in page
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["data"]["num_images"], metrics["data"]["num_failed"]) == (11, 1)
    other = ovsam(*arguments, "--prompt", "point", "--out", tmp_path / "out")
    assert other.exit_code == 2 and "options.prompt: was" in other.stderr


def test_rows_survive_the_journal() -> None:
    record = ImageRecord(Path("1.jpg"), "1.jpg", 1)
    row = LogitRow.of(record, np.float32([[3, 2.5, -9e9], [0, 0, 1]]), np.asarray([1, 2]))
    found = LogitRow.from_json(row.to_json())
    assert found.logits.tolist() == [[0, -0.5, -60000], [-1, -1, 0]]
    assert (found.record, found.true_rows.tolist(), found.reason) == (record, [1, 2], "")
    none = LogitRow.of(record, np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert LogitRow.from_json(none.to_json()).logits.shape == (0, 3)
    failed = LogitRow.from_json(LogitRow.failed(record, "bad", "why").to_json())
    assert (failed.reason, failed.message, len(failed.true_rows)) == ("bad", "why", 0)
