"""`ovsam label` on a small model: the files it writes, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import Result

Ovsam = Callable[..., Result]

PROMPTS = {
    "images": [
        {
            "file_name": "a.jpg",
            "prompts": [
                {"id": "left", "box": [5, 5, 40, 50]},
                {"id": 7, "points": [[40, 30], [10, 10]], "labels": [1, 0]},
            ],
        },
        {"file_name": "more/b.png", "points": [[25, 45]]},
    ]
}


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(PROMPTS))
    return path


@pytest.fixture
def label(ovsam: Ovsam, checkpoint: Path, photos: Path, prompt_file: Path) -> Ovsam:
    """`ovsam label` with everything it needs; further arguments go behind and win."""

    def run(out: Path, *more: str | Path) -> Result:
        return ovsam(
            *("label", photos, "--prompts", prompt_file, "--vocab", "cat, dog, zebra"),
            *("--model", checkpoint, "--devices", "cpu", "--out", out, *more),
        )

    return run


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_writes_coco_with_the_callers_ids(label: Ovsam, tmp_path: Path) -> None:
    result = label(tmp_path / "out", "--previews", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "out" / "annotations.json")
    coco = COCO(tmp_path / "out" / "annotations.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        "a.jpg",
        "more/b.png",
    ]
    rows = coco.loadAnns(coco.getAnnIds())
    assert [row["attributes"]["prompt_id"] for row in rows if row["image_id"] == 1] == ["left", 7]
    for row in rows:
        mask = coco.annToMask(row)
        assert mask.sum() == row["area"] > 0
        assert 0 < row["score"] <= 1
        assert row["category_id"] in {1, 2, 3}
    assert (tmp_path / "out" / "previews" / "a.jpg.jpg").is_file()
    assert not (tmp_path / "out" / "previews" / "more").exists()
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["weights"]["name"] == "small"
    assert run["images"]["total"] == 2


def test_batches_do_not_change_the_file(label: Ovsam, tmp_path: Path) -> None:
    label(tmp_path / "one")
    label(tmp_path / "two", "--batch-size", "2", "--prompts-per-batch", "2")
    one, two = (json.loads((tmp_path / n / "annotations.json").read_text()) for n in ("one", "two"))
    assert one["images"] == two["images"]
    for left, right in zip(one["annotations"], two["annotations"], strict=True):
        assert left["segmentation"] == right["segmentation"]
        assert left["score"] == pytest.approx(right["score"], rel=1e-4)


def test_running_again_goes_on(label: Ovsam, tmp_path: Path, photos: Path) -> None:
    first = label(tmp_path / "out")
    before = (tmp_path / "out" / "annotations.json").read_bytes()
    again = label(tmp_path / "out")
    assert first.exit_code == again.exit_code == 0
    assert "0 images labelled" in again.stderr
    assert (tmp_path / "out" / "annotations.json").read_bytes() == before


def test_other_settings_are_refused_then_restarted(label: Ovsam, tmp_path: Path) -> None:
    label(tmp_path / "out")
    refused = label(tmp_path / "out", "--fusion", "head")
    assert refused.exit_code == 2
    assert "fusion" in refused.stderr and "--restart" in refused.stderr
    assert label(tmp_path / "out", "--fusion", "head", "--restart").exit_code == 0


def test_grid_without_prompts(ovsam: Ovsam, checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    result = ovsam(
        *("label", photos, "--vocab", "cat, dog", "--model", checkpoint, "--devices", "cpu"),
        *("--grid", "4", "--crop-layers", "1", "--min-stability", "0", "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    coco = COCO(tmp_path / "out" / "annotations.json")
    masks = [coco.annToMask(row) for row in coco.loadAnns(coco.getAnnIds(imgIds=[1]))]
    assert masks and all(mask.shape == (60, 80) for mask in masks)
    for first, mask in enumerate(masks):  # each object once
        for other in masks[:first]:
            assert (mask & other).sum() / (mask | other).sum() <= 0.7 + 0.05


def test_a_bad_image_is_recorded_and_the_rest_labelled(
    label: Ovsam, tmp_path: Path, photos: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"<html>not found</html>")
    result = label(tmp_path / "out")
    assert result.exit_code == 3
    rows = [json.loads(line) for line in _lines(tmp_path / "out" / "errors.jsonl")]
    assert [row["file_name"] for row in rows if row["level"] == "error"] == ["broken.jpg"]
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]) == 2


def test_unusable_prompts_are_listed(label: Ovsam, tmp_path: Path, photos: Path) -> None:
    prompts = tmp_path / "odd.json"
    images = [
        {"file_name": "a.jpg", "boxes": [[5, 5, 40, 50], [500, 5, 600, 50], [5, 5, 5, 50]]},
        {"file_name": "gone.jpg", "points": [[1, 1]]},
    ]
    prompts.write_text(json.dumps({"images": images}))
    result = label(tmp_path / "out", "--prompts", prompts)
    assert result.exit_code == 0, result.output
    assert "gone.jpg" in result.stderr
    rows = [json.loads(line) for line in _lines(tmp_path / "out" / "errors.jsonl")]
    assert len(rows) == 2 and all(row["file_name"] == "a.jpg" for row in rows)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["unmatched_prompts"] == [
        "gone.jpg"
    ]


def test_unknown_name_keeps_what_no_name_fits(label: Ovsam, tmp_path: Path) -> None:
    result = label(tmp_path / "out", "--unknown-name", "something", "--min-score", "1")
    assert result.exit_code == 0
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert content["categories"][-1]["name"] == "something"
    assert {row["category_id"] for row in content["annotations"]} == {4}


def test_nothing_found_is_exit_5(label: Ovsam, tmp_path: Path) -> None:
    assert label(tmp_path / "out", "--min-score", "1").exit_code == 5


def test_dry_run_writes_nothing(label: Ovsam, tmp_path: Path) -> None:
    result = label(tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "2 images" in result.stdout and not (tmp_path / "out").exists()


def test_more_is_said_on_request(label: Ovsam, tmp_path: Path) -> None:
    assert "sha256" not in label(tmp_path / "a").stderr
    shown = label(tmp_path / "b", "-v").stderr
    assert "weights small, sha256 " in shown
    assert "float32, 1 images a step" in shown and "2 images, 0 of them finished" in shown
    quiet = label(tmp_path / "c", "-q")
    assert quiet.stderr == "" and quiet.stdout.strip().endswith("annotations.json")


def test_json_events(label: Ovsam, tmp_path: Path) -> None:
    result = label(tmp_path / "out", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["started", "image", "image", "finished"]


def test_upright_photo(label: Ovsam, tmp_path: Path, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "a.jpg", exif=exif)
    label(tmp_path / "out")
    image = json.loads((tmp_path / "out" / "annotations.json").read_text())["images"][0]
    assert (image["width"], image["height"], image["exif_orientation"]) == (60, 80, 6)


BAD_INPUT = [
    pytest.param(["--vocab", "cat, cat"], "cat", id="duplicate-name"),
    pytest.param(["--vocab", "nosuch"], "nosuch", id="unknown-vocabulary"),
    pytest.param(["--prompts", "nosuch.json"], "nosuch.json", id="missing-prompts"),
    pytest.param(["--devices", "tpu"], "cpu", id="unknown-device"),
    pytest.param(["--devices", "cuda:77"], "cuda:77", id="absent-device"),
    pytest.param(["--devices", "cuda:0,cuda:1"], "is not on this machine", id="several-devices"),
    pytest.param(["--previews", "some"], "--previews", id="previews"),
    pytest.param(["--unknown-name", "cat"], "--unknown-name", id="unknown-name-taken"),
    pytest.param(["--masks", "bitmap"], "--masks", id="mask-format"),
]


@pytest.mark.parametrize(("more", "named"), BAD_INPUT)
def test_bad_input_is_exit_2_and_one_line(
    label: Ovsam, tmp_path: Path, more: list[str], named: str
) -> None:
    result = label(tmp_path / "out", *more)
    assert result.exit_code == 2
    assert named in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "annotations.json").exists()


def test_missing_folder_and_empty_folder(ovsam: Ovsam, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images in ("nowhere", "empty"):
        where = tmp_path / images
        result = ovsam("label", where, "--vocab", "coco", "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ") and str(where) in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_malformed_prompts_name_file_and_index(label: Ovsam, tmp_path: Path) -> None:
    prompts = tmp_path / "bad.json"
    prompts.write_text(json.dumps({"images": [{"file_name": "a.jpg", "boxes": [[1, 2, 3]]}]}))
    result = label(tmp_path / "out", "--prompts", prompts)
    assert result.exit_code == 2
    assert "bad.json:" in result.stderr


def test_foreign_output_folder(label: Ovsam, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    refused = label(out)
    assert refused.exit_code == 2
    assert "thesis.doc" in refused.stderr and "--overwrite" in refused.stderr
    assert label(out, "--overwrite").exit_code == 0
    assert (out / "thesis.doc").read_text() == "mine"


def test_weights_that_are_not_there_are_exit_4(label: Ovsam, tmp_path: Path) -> None:
    for missing in (tmp_path / "nothing.pth", Path("none.safetensors")):
        result = label(tmp_path / "out", "--model", missing)
        assert result.exit_code == 4, result.output
        assert f"--model {missing}: no such file or folder of weights" in result.stderr


def test_unknown_model_lists_the_known_ones(label: Ovsam, tmp_path: Path) -> None:
    result = label(tmp_path / "out", "--model", "huge")
    assert result.exit_code == 2
    assert "rn50x16" in result.stderr and "tiny" in result.stderr
