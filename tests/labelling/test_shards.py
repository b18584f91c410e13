"""Shards: which part a process takes, and that joined parts are the undivided run's file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.device_engine import resolve_devices
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.labelling.run import label_images
from ovsam_cli.labelling.shards import Shard, parse_shard
from ovsam_cli.structures import ImageResult

SLURM = {
    "SLURM_ARRAY_TASK_ID": "12",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_MAX": "13",
}


@pytest.mark.parametrize(
    ("text", "environment", "wanted"),
    [
        ("0/1", {}, (0, 1)),
        ("3/8", {"RANK": "1", "WORLD_SIZE": "2"}, (3, 8)),
        ("auto", {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ("auto", SLURM, (2, 4)),  # arrays may begin anywhere
        ("auto", {"RANK": "0", "WORLD_SIZE": "2"} | SLURM, (0, 2)),
        ("auto", {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, (3, 4)),
        ("auto/5", {"JOB_COMPLETION_INDEX": "4"}, (4, 5)),
        ("auto/5", SLURM, (2, 5)),
    ],
)
def test_which_part_is_meant(text, environment, wanted):
    found = parse_shard(text, environment)
    assert found is not None
    assert (found.index, found.count) == wanted


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3/3", {}, "0 <= I < N"),
        ("0/0", {}, "0 <= I < N"),
        ("-1/3", {}, "expected I/N"),
        ("1", {}, "expected I/N"),
        ("1/3/5", {}, "expected I/N"),
        ("", {}, "expected I/N"),
        ("auto", {}, "RANK with WORLD_SIZE, SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT"),
        ("auto", {"RANK": "1"}, "none of these variables"),
        ("auto", {"JOB_COMPLETION_INDEX": "4"}, "give --shard auto/N"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x', expected a number"),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_MAX": "16"}, "10-16 has 4 tasks, so its numbers have"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "0 <= I < N"),
        ("auto/2", {}, "none of these variables is set: RANK, "),
    ],
)
def test_wrong_parts_are_refused(text, environment, message):
    with pytest.raises(InputError, match=message):
        parse_shard(text, environment)


def test_parts_are_all_of_it():
    taken = [list(Shard(index, 3).take(range(11))) for index in range(3)]
    assert sorted(item for items in taken for item in items) == list(range(11))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_shards_on_one_machine_take_a_gpu_each(monkeypatch):
    """As torchrun starts them; all took the first one."""
    present = ["cuda:0", "cuda:1", "cpu"]
    monkeypatch.setattr("ovsam_cli.labelling.device_engine.list_devices", lambda: present)
    assert resolve_devices("auto", local_rank=1) == ("cuda:1",)
    assert resolve_devices("cuda", local_rank=3) == ("cuda:1",)
    assert resolve_devices("cpu", local_rank=1) == ("cpu",)
    assert resolve_devices("auto") == ("auto",)
    assert resolve_devices("all") == ("cuda:0", "cuda:1")
    monkeypatch.setattr("ovsam_cli.labelling.device_engine.list_devices", lambda: ["cpu"])
    assert resolve_devices("auto", local_rank=1) == ("auto",)
    with pytest.raises(InputError, match="every CUDA device, and there is none"):
        resolve_devices("all")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """`whole/`, `shards/` (three), and what they were made of, with a spoilt picture."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(3)
    (folder / "photos").mkdir()
    entries = []
    for number in range(9):
        pixels = rng.integers(0, 255, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        box = [3, 3, 40, 30]
        entries.append({"file_name": f"{number}.png", "boxes": [box] * (1 + number % 3)})
    (folder / "photos" / "4.png").write_bytes(b"nothing")
    (folder / "prompts.json").write_text(json.dumps({"images": entries}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSAM_CACHE", str(folder / "cache"))
        label_images(make_request(folder, checkpoint, "whole"))
        for index in range(3):
            label_images(make_request(folder, checkpoint, "shards", shard=Shard(index, 3)))
    return folder


def make_request(
    folder: Path, checkpoint: Path, out: str, *, shard: Shard | None = None
) -> LabelRequest:
    return LabelRequest(
        images=(str(folder / "photos"),),
        vocabulary="cat, dog, zebra",
        out=folder / out,
        prompts=str(folder / "prompts.json"),
        model=str(checkpoint),
        devices="cpu",
        shard=shard,
        options=LabelOptions(top_k=2, batch_size=2, num_previews=2),
    )


def shard_folder(folder: Path, index: int) -> Path:
    return folder / "shards" / f"shard-0000{index}-of-00003"


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    return tmp_path / "joined.json"


def test_joined_shards_are_the_undivided_run(ovsam, shared, joined):
    """Byte for byte, from their common folder as from their own in any order."""
    whole = (shared / "whole" / "annotations.json").read_bytes()
    done = ovsam("export", "coco", shared / "shards", "--out", joined)
    assert done.exit_code == 0, done.output
    assert joined.read_bytes() == whole
    assert "1 failed images left out" in done.output
    given = [shard_folder(shared, index) for index in (2, 0, 1)]
    assert ovsam("export", "coco", *given, "--out", joined).exit_code == 2  # is there already
    assert ovsam("export", "coco", *given, "--out", joined, "--overwrite").exit_code == 0
    assert joined.read_bytes() == whole
    previews = [path.name for path in (shared / "shards").rglob("*.jpg")]
    assert sorted(previews) == sorted(p.name for p in (shared / "whole").rglob("*.jpg"))


def test_a_whole_run_is_exported_too(ovsam, shared, joined):
    done = ovsam("export", "coco", shared / "whole", "--out", joined)
    assert done.exit_code == 0, done.output
    assert joined.read_bytes() == (shared / "whole" / "annotations.json").read_bytes()
    done = ovsam("export", "coco", shared / "whole", "--out", joined, "--overwrite", "--masks=none")
    assert done.exit_code == 0
    assert b"segmentation" not in joined.read_bytes()


def test_a_missing_shard(ovsam, shared, joined):
    given = [shard_folder(shared, 0), shard_folder(shared, 2)]
    done = ovsam("export", "coco", *given, "--out", joined)
    assert (done.exit_code, joined.exists()) == (2, False)
    assert "1 of 3 shards missing: 1/3; give their folders too" in done.output
    done = ovsam("export", "coco", *given, "--out", joined, "--partial")
    assert done.exit_code == 0
    assert "left out: shards 1/3" in done.output
    assert 0 < len(json.loads(joined.read_bytes())["images"]) < 8


def test_a_shard_twice(ovsam, shared, joined, tmp_path):
    first = shard_folder(shared, 0)
    done = ovsam("export", "coco", shared / "shards", first, "--out", joined)
    assert done.exit_code == 2 and "is given twice" in done.output
    shutil.copytree(first, tmp_path / "copy")
    done = ovsam("export", "coco", shared / "shards", tmp_path / "copy", "--out", joined)
    assert done.exit_code == 2 and "shard 0/3 is there twice" in done.output


def test_shards_of_another_run(
    ovsam: Callable[..., Result], shared, joined, checkpoint, monkeypatch
):
    """Other settings, and other images: both are named."""
    monkeypatch.setenv("OVSAM_CACHE", str(shared / "cache"))
    request = make_request(shared, checkpoint, "other", shard=Shard(1, 3))
    label_images(replace(request, options=replace(request.options, min_score=0.1)))
    label_images(
        replace(request, out=shared / "fewer", images=(str(shared / "photos" / "[0-7].png"),))
    )
    for name, difference in [
        ("other", "options.min_score: 0.0 there, 0.1 here"),
        ("fewer", "options.shard.images: "),
    ]:
        given = [shard_folder(shared, 0), shard_folder(shared, 2)]
        other = shared / name / "shard-00001-of-00003"
        done = ovsam("export", "coco", *given, other, "--out", joined)
        assert done.exit_code == 2
        assert difference in done.output


def test_an_unfinished_shard(ovsam, shared, joined, checkpoint, monkeypatch):
    monkeypatch.setenv("OVSAM_CACHE", str(shared / "cache"))
    request = make_request(shared, checkpoint, "begun", shard=Shard(0, 1))

    def stop(result: ImageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_images(request, on_image_done=stop)
    done = ovsam("export", "coco", shared / "begun", "--out", joined)
    assert done.exit_code == 2
    assert "not finished: " in done.output and " has 1 of 9 images" in done.output
    done = ovsam("export", "coco", shared / "begun", "--out", joined, "--partial")
    assert done.exit_code in (0, 5)
    assert "left out: 8 images that are not labelled yet" in done.output


def test_what_is_no_run(ovsam, shared, joined, tmp_path):
    done = ovsam("export", "coco", tmp_path, "--out", joined)
    assert done.exit_code == 2 and "holds no run of ovsam" in done.output
    done = ovsam("export", "coco", shared / "whole", shard_folder(shared, 0), "--out", joined)
    assert done.exit_code == 2


def test_shards_and_a_run_do_not_share_a_folder(shared, checkpoint):
    with pytest.raises(InputError, match="holds a run without --shard"):
        label_images(make_request(shared, checkpoint, "whole", shard=Shard(0, 3)))
    with pytest.raises(InputError, match="is not empty and holds no run"):
        label_images(make_request(shared, checkpoint, "shards"))
    with pytest.raises(InputError, match="holds no shards of ovsam"):
        label_images(make_request(shared, checkpoint, "photos", shard=Shard(0, 3)))


def test_rows_of_images_that_are_gone(ovsam, shared, joined, checkpoint, tmp_path, monkeypatch):
    """Ids are those of the last start's list, not those of older rows."""
    monkeypatch.setenv("OVSAM_CACHE", str(shared / "cache"))
    photos = tmp_path / "photos"
    shutil.copytree(shared / "photos", photos)
    request = replace(
        make_request(shared, checkpoint, "whole"), images=(str(photos),), out=tmp_path / "out"
    )
    label_images(request)
    (photos / "2.png").unlink()
    label_images(request)
    assert ovsam("export", "coco", tmp_path / "out", "--out", joined).exit_code == 0
    assert joined.read_bytes() == (tmp_path / "out" / "annotations.json").read_bytes()
