"""Every command that README and documents show is run, page by page, on small data.

What the commands name lies in one folder: photos of a few pixels, prompts, names, ground truth. A
small model of random weights stands for `rn50x16` and for a trained one, and two points a side for
the grid. What cannot be run so, the documents themselves say (`doc_commands.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from doc_commands import DOCUMENTS, ROOT, Shown, find_shown
from small_model import write_photos
from typer.testing import Result

from ovsam_cli.masks import encode_mask

Ovsam = Callable[..., Result]
FOUND_OR_NOT = (0, 5)  # random weights may find nothing in noise
# Its two rows at the least scale; the others of `ovsam bench` are in tests/benchmarking.
BENCH_ROWS = "C8,S1"


def find_runs(document: str) -> list[Shown]:
    """The commands of a page that a test can run."""
    return [one for one in find_shown(document) if not one.needs and one.program == "ovsam"]


RUN_DOCUMENTS = [document for document in DOCUMENTS if find_runs(document)]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """`ovsam bench` sets their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workplace(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the commands name; options that make them quick."""
    for name in ("images", "photos", "data/coco/val2017"):
        write_photos(tmp_path / name)
    shutil.copy(tmp_path / "images" / "a.jpg", tmp_path / "photo.jpg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "list.txt").write_text("images/a.jpg\nimages/more/b.png\n")
    prompts = '{"images": [{"file_name": "a.jpg", "boxes": [[1, 2, 30, 40]]}]}'
    for name in ("prompts.json", "boxes.json"):
        (tmp_path / name).write_text(prompts)
    write_ground_truth(tmp_path)
    write_blocks(tmp_path)
    own = shutil.copy(checkpoint, tmp_path / "own.safetensors")  # calibrating writes beside it
    (tmp_path / "run-coco").mkdir()
    shutil.copy(checkpoint, tmp_path / "run-coco" / "model.safetensors")
    for command in ("LABEL", "EVAL_PROMPTED", "EVAL_CALIBRATE"):
        monkeypatch.setenv(f"OVSAM_{command}_MODEL", str(own))
    monkeypatch.setenv("OVSAM_BENCH_SCALE", "minimal")
    monkeypatch.setenv("OVSAM_BENCH_ONLY", BENCH_ROWS)
    monkeypatch.setenv("OVSAM_LABEL_GRID", "2")
    monkeypatch.setenv("OVSAM_LABEL_RESTART", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_ground_truth(folder: Path) -> None:
    """A COCO data set of 24 squares on two photos, and detections of the same."""
    photos = [(9, "a.jpg", (60, 80)), (12, "more/b.png", (90, 50))]
    annotations = []
    for number in range(24):
        image_id, _, (height, width) = photos[number % 2]
        mask = np.zeros((height, width), bool)
        x, y = number, number + 5
        mask[y : y + 20, x : x + 20] = True
        shape = {"bbox": [x, y, 20, 20], "area": 400, "segmentation": encode_mask(mask)}
        own = {"id": number + 1, "image_id": image_id, "category_id": 17, "iscrowd": 0}
        annotations.append(own | shape)
    content = {
        "images": [
            {"id": image_id, "file_name": name, "width": hw[1], "height": hw[0]}
            for image_id, name, hw in photos
        ],
        "annotations": annotations,
        "categories": [{"id": 17, "name": "cat"}],
    }
    results = [one | {"score": 0.9} for one in annotations]
    for place in ("annotations", "OUT"):
        (folder / "data" / "coco" / place).mkdir(exist_ok=True)
    (folder / "OUT").mkdir()
    for name in ("dataset.json", "instances.json", "instances_val2017.json"):
        (folder / name).write_text(json.dumps(content))
    shutil.copy(folder / "dataset.json", folder / "data/coco/annotations/instances_val2017.json")
    (folder / "detections.json").write_text(json.dumps(results))
    (folder / "OUT" / "annotations.json").write_text(json.dumps(results))


def write_blocks(folder: Path) -> None:
    """The configuration and the names, as their pages show them."""
    for page, language, name in (
        ("settings", "toml", "ovsam.toml"),
        ("vocabularies", "text", "names.txt"),
    ):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        block = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)[0]
        assert block.startswith(f"# {name}")
        (folder / name).write_text(block)


def vary(words: list[str]) -> list[list[str]]:
    """One part of a run alone cannot be exported: two small shards stand for the one shown."""
    if "--shard" not in words:
        return [words]
    place = words.index("--shard") + 1
    return [[*words[:place], shard, *words[place + 1 :]] for shard in ("0/2", "1/2")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("document", RUN_DOCUMENTS)
def test_commands_of_a_page_run(document: str, workplace: Path, ovsam: Ovsam) -> None:
    if document != "README.md":  # whose own commands make what others export
        assert ovsam("label", "images/", "--vocab", "cat, dog", "--out", "run/").exit_code in (0, 5)
    for one in find_runs(document):
        words = one.arguments
        if words[0] == "export":
            target = workplace / words[words.index("--out") + 1]
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        for arguments in vary(words):
            done = ovsam(*arguments)
            assert done.exit_code in FOUND_OR_NOT, (arguments, done.output)


def test_what_is_not_run_says_what_it_needs() -> None:
    """Programs other than ours are not run here: each one says why, or comes from `pip`."""
    for document in DOCUMENTS:
        for one in find_shown(document):
            assert one.needs or one.program == "ovsam" or one.program.endswith("pip"), one
