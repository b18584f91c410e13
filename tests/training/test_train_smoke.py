"""Every training stage in turn, from SAM's features to a model that labels; `make train-smoke`.

The stages are tested one by one elsewhere. Here each gets what the one before it wrote: once in
this process, once as a user with several devices runs them, killed in between.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from scene_builders import write_scenes
from small_model import SMALL
from training.teacher_builders import build_small_encoder, write_sam_file
from typer.testing import Result

from ovsam_cli.model.checkpoint import build_ovsam, load_model, save_weights
from ovsam_cli.model.official_files import LAST_NAME, read_official
from ovsam_cli.training.logs import LOG_NAME, read_log

NUM_IMAGES = 6
TIMEOUT = 3000  # seconds: ranks wait for each other, which takes long on a busy machine
STEPS = 60  # of the killed runs; each 20th writes a line of the log
NECK_NAME, MODEL_NAME = "sam2clip.safetensors", "model.safetensors"


@dataclass(frozen=True, slots=True)
class Toys:
    """What a user brings: annotated images, SAM, a model with the trunk."""

    scenes: Path
    sam: Path
    start: Path
    folder: Path

    @property
    def images(self) -> Path:
        return self.scenes / "images"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def cache_teacher(self) -> list[str]:
        command = ["train", "cache-teacher", self.images, self.cache]
        return texts(*command, "--checkpoint", self.sam, "--device", "cpu", "--shard-size", 2)

    def sam2clip(self, out: Path, *, steps: int) -> list[str]:
        command = ["train", "sam2clip", self.images, out, "--trunk", self.start]
        command += ["--teacher-cache", self.cache, "--warmup-steps", 0, "--batch", 1]
        return texts(*command, *common(steps, 2))

    def clip2sam(self, out: Path, model: Path, *, steps: int, ranks: int = 1) -> list[str]:
        """A toy COCO file with the published recipe; two images a step, however many ranks."""
        data = f"{self.scenes / 'instances.json'}:{self.images}"
        command = ["train", "clip2sam", out, "--data", data, "--model", model, "--recipe", "coco"]
        command += ["--classes", "all", "--iou-head", "--warmup-steps", 0, "--batch", 1]
        return texts(*command, *common(steps, 2 // ranks))


def texts(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def common(steps: int, accumulate: int) -> list[object]:
    return [
        *("--max-steps", steps, "--accumulate", accumulate, "--workers", 0),
        *("--device", "cpu", "--learning-rate", 1e-3),
    ]


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    scenes = tmp_path / "scenes"
    write_scenes(scenes, NUM_IMAGES)
    sam = write_sam_file(tmp_path / "sam.pth", build_small_encoder())
    config = replace(SMALL, iou_head=True, num_point_masks=3)
    torch.manual_seed(3)
    state = build_ovsam(config).state_dict()
    start = tmp_path / "start.safetensors"
    save_weights(state, config, start, license_notice="none")
    return Toys(scenes, sam, start, tmp_path)


def put_neck(start: Path, neck: Path, target: Path) -> Path:
    """The start with the trained neck, as an official set of files has them beside each other."""
    loaded = load_model(str(start), device=torch.device("cpu"))
    state = loaded.model.state_dict()
    trained = read_official([neck]).weights
    assert trained.keys() == {key for key in state if key.startswith("neck.")}
    assert any(not torch.equal(state[key], trained[key]) for key in trained)
    save_weights({**state, **trained}, loaded.config, target, license_notice="none")
    return target


def check_labels(ovsam: Callable[..., Result], toys: Toys, model: Path) -> None:
    """`ovsam label` with the trained model on one image writes a COCO file others read."""
    image, out = toys.images / "1.png", toys.folder / "labels"
    prompts = toys.folder / "prompts.json"
    one = {"file_name": image.name, "boxes": [[40, 10, 90, 60]], "points": [[70, 35]]}
    prompts.write_text(json.dumps({"images": [one]}))
    command = ["label", image, "--vocab", "disc,bar", "--prompts", prompts, "--model", model]
    result = ovsam(*texts(*command, "--out", out, "--devices", "cpu"))
    assert result.exit_code == 0, result.output
    coco = COCO(str(out / "annotations.json"))
    assert [entry["file_name"] for entry in coco.dataset["images"]] == [image.name]
    found = coco.loadAnns(coco.getAnnIds())
    # After a few steps a mask may still be empty, and empty ones are not written.
    assert 1 <= len(found) <= 2
    with Image.open(image) as opened:
        width, height = opened.size
    for annotation in found:
        assert coco.annToMask(annotation).shape == (height, width)
        assert annotation["category_id"] in coco.cats
        assert isinstance(annotation["attributes"]["predicted_iou"], float)


def train_neck(ovsam: Callable[..., Result], toys: Toys) -> Path:
    """Both steps of SAM2CLIP; the model with the neck that came of them."""
    out = toys.folder / "neck"
    for command in (toys.cache_teacher(), toys.sam2clip(out, steps=2)):
        result = ovsam(*command)
        assert result.exit_code == 0, result.output
    return put_neck(toys.start, out / NECK_NAME, toys.folder / "merged.safetensors")


def test_every_stage_in_turn(ovsam: Callable[..., Result], toys: Toys) -> None:
    run = toys.folder / "run"
    result = ovsam(*toys.clip2sam(run, train_neck(ovsam, toys), steps=2))
    assert result.exit_code == 0, result.output
    check_labels(ovsam, toys, run / MODEL_NAME)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads torchrun's processes from /proc")
def test_killed_ranks_go_on(ovsam: Callable[..., Result], toys: Toys) -> None:
    """Two processes, told to stop, then killed, then run again: as if never interrupted."""
    start = train_neck(ovsam, toys)
    runs = [toys.folder / "killed", toys.folder / "whole"]
    kill_and_finish(toys.clip2sam(runs[0], start, steps=STEPS, ranks=2), runs[0])
    run_to_end(toys.clip2sam(runs[1], start, steps=STEPS, ranks=2))
    assert_same(runs, MODEL_NAME)
    check_labels(ovsam, toys, runs[0] / MODEL_NAME)


def start_ranks(command: Sequence[str]) -> subprocess.Popen[str]:
    """Two gloo processes of `ovsam` under torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "--module", "ovsam_cli"]
    return subprocess.Popen(
        [*torchrun, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_to_end(command: Sequence[str]) -> str:
    process = start_ranks(command)
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()  # else ranks that hang outlive the test
        process.wait()
    assert process.returncode == 0, output
    return output


def kill_and_finish(command: Sequence[str], out: Path) -> None:
    """Tell the ranks to stop, which saves; kill the next call after it went on; run a third."""
    stopped = start_ranks(command)
    wait_for_line(out, stopped)
    stopped.terminate()  # torchrun, which tells its ranks
    stopped.communicate(timeout=TIMEOUT)
    saved_at = torch.load(out / LAST_NAME, weights_only=True)["step"]
    assert 0 < saved_at < STEPS
    killed = start_ranks(command)
    wait_for_line(out, killed)
    kill_ranks(killed)
    assert torch.load(out / LAST_NAME, weights_only=True)["step"] == saved_at
    run_to_end(command)


def kill_ranks(torchrun: subprocess.Popen[str]) -> None:
    """SIGKILL for both; torchrun reports their end and ends too."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    assert len(children) >= 2
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    output, _ = torchrun.communicate(timeout=TIMEOUT)
    assert torchrun.returncode != 0, output


def wait_for_line(out: Path, process: subprocess.Popen[str]) -> None:
    """Until the log has one line more."""
    seen = len(read_log(out / LOG_NAME))
    while len(read_log(out / LOG_NAME)) <= seen:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def assert_same(folders: Sequence[Path], name: str) -> None:
    """Equal files of weights, and logs of all steps without doubles."""
    killed, whole = ((folder / name).read_bytes() for folder in folders)
    assert killed == whole
    steps = [[line["step"] for line in read_log(folder / LOG_NAME)] for folder in folders]
    assert steps[0] == steps[1]
    assert steps[0][-1] == STEPS
