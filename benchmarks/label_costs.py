"""Processor time and memory of `ovsam label` by images and prompts, for `--dry-run` to estimate.

    python benchmarks/label_costs.py OUT.json

Whole commands with the bundled `tiny` on the CPU, one thread, in turns, medians of three rounds. A
cost an image and a cost a prompt are differences between runs, so starting does not count.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from ovsam_cli.benchmarking.machine import describe_machine

ROOT = Path(__file__).parent.parent
FEW, MANY, ROUNDS = 2, 8, 3
# Name of a run -> images, boxes an image; no boxes is a grid of 16 x 16 points.
RUNS = {"few": (FEW, 1), "many": (MANY, 1), "boxes": (FEW, 21), "grid few": (1, 0), "grid": (2, 0)}


def main() -> None:
    """Measure and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rounds = [{name: measure(place, *run) for name, run in RUNS.items()} for _ in range(ROUNDS)]
    seconds = {name: median(one[name][0] for one in rounds) for name in RUNS}
    an_image = (seconds["many"] - seconds["few"]) / (MANY - FEW)
    content = {
        "what": "core seconds of whole commands, one thread; peak memory of the process",
        "runs": {name: {"images": run[0], "boxes": run[1]} for name, run in RUNS.items()},
        "rounds": rounds,
        "tiny on cpu": {
            "start_seconds": seconds["few"] - FEW * an_image,
            "image_seconds": an_image,
            "prompt_seconds": (seconds["boxes"] - seconds["few"]) / (FEW * 20),
            "grid_image_seconds": seconds["grid"] - seconds["grid few"],
            "memory_gib": max(one[name][1] for one in rounds for name in RUNS),
        },
        "machine": asdict(describe_machine(torch.device("cpu"))),
    }
    Path(sys.argv[1]).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(place: Path, num_images: int, num_boxes: int) -> tuple[float, float]:
    """Core seconds and peak GiB of one command."""
    images, out = place / "images", place / "out"
    for folder in (images, out):
        shutil.rmtree(folder, ignore_errors=True)
    images.mkdir()
    photos = sorted((ROOT / "examples").glob("*.jpg"))
    names = [f"{number:02d}.jpg" for number in range(num_images)]
    for number, name in enumerate(names):
        shutil.copy(photos[number % len(photos)], images / name)
    boxes = [[10 + 5 * k, 20 + 4 * k, 150 + 5 * k, 140 + 6 * k] for k in range(num_boxes)]
    prompts = place / "prompts.json"
    rows = [{"file_name": name, "boxes": boxes} for name in names]
    prompts.write_text(json.dumps({"images": rows}), encoding="utf-8")
    how = ["--prompts", str(prompts)] if num_boxes else ["--grid", "16"]
    command = [sys.executable, "-m", "ovsam_cli", "label", str(images), "--vocab", "coco", *how]
    command += ["--model", "tiny", "--devices", "cpu", "--out", str(out), "-q", "--no-report"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    limits = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=os.environ | limits, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
