"""Two steps of each training stage at the published size with random weights: memory and time.

Makes files of the official layouts in a scratch folder (about 2 GB), runs the real commands on
them, each in a process of its own, and prints peak memory and seconds a step:

    python benchmarks/dry_run_training.py SCRATCH [--threads 2] [--out RESULT.json]

Peak memory is the greatest resident size of the command's process, pages of read weight files
included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from segment_anything import build_sam_vit_b

from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.config import PRESETS
from ovsam_cli.model.sam_encoder import build_sam_encoder

NUM_IMAGES = 2
STEPS = 2
NAMES = ("cup", "dog")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took: wall clock, processor time, greatest resident size."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One command.

    Attributes:
        stage: name of the command.
        trained_parameters, frozen_parameters: counts.
        seconds_per_step: of one image through the teacher, or of one step of one image.
        usage: of the whole command, loading included; processor time tells more than the clock
            where other work shares the cores.
    """

    stage: str
    trained_parameters: int
    frozen_parameters: int
    seconds_per_step: float
    usage: Usage


def write_images(folder: Path) -> None:
    """Noise of SA-1B's usual size (1500 x 2250), which JPEG keeps at several MB."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(NUM_IMAGES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 255, (94, 141, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((2250, 1500)).save(folder / f"sa_{number}.jpg", quality=90)


def write_annotations(folder: Path) -> None:
    """`instances.json` beside `images/`: two ellipses an image, as polygons."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    images, annotations = list[dict[str, object]](), list[dict[str, object]]()
    for number in range(NUM_IMAGES):
        images.append(
            {"id": number, "file_name": f"sa_{number}.jpg", "height": 1500, "width": 2250}
        )
        for category, center in ((1, (700, 700)), (2, (1500, 800))):
            polygon = (circle * (400, 300) + center).round(1).ravel().tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "segmentation": [polygon],
                    "bbox": [center[0] - 400, center[1] - 300, 800, 600],
                    "area": 376991,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def write_weights(folder: Path) -> None:
    """Random: `trunk.pth` with keys `backbone.*`, a SAM with ViT-B, two names' embeddings."""
    torch.manual_seed(0)
    model = build_ovsam(PRESETS["rn50x16"])
    state = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    torch.save(state, folder / "trunk.pth")
    torch.save(build_sam_vit_b().state_dict(), folder / "sam_vit_b.pth")
    torch.save(torch.nn.functional.normalize(torch.randn(2, 1, 768), dim=-1), folder / "names.pth")


def count_parameters() -> dict[str, int]:
    """Of the published model's parts and of the teachers."""
    with torch.device("meta"):
        model = build_ovsam(PRESETS["rn50x16"])
        counts = {
            name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
        }
        encoder = build_sam_encoder("vit_b")
    counts["vit_b"] = sum(p.numel() for p in encoder.parameters())
    return counts


def run_command(arguments: list[str], threads: int) -> Usage:
    """Run `ovsam` with these arguments."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "ovsam_cli", *arguments], env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"ovsam {' '.join(arguments)} ended with {child.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Usage(time.monotonic() - started, cpu_seconds, usage.ru_maxrss / 2**20)


def measure_cache(scratch: Path, threads: int) -> Measurement:
    """`cache-teacher` with ViT-B, an image a step."""
    command = ["train", "cache-teacher", str(scratch / "images"), str(scratch / "cache")]
    command += ["--checkpoint", str(scratch / "sam_vit_b.pth"), "--device", "cpu"]
    usage = run_command([*command, "--workers", "1"], threads)
    frozen = count_parameters()["vit_b"]
    return Measurement("cache-teacher vit_b", 0, frozen, usage.seconds / NUM_IMAGES, usage)


def measure_sam2clip(scratch: Path, threads: int) -> Measurement:
    """`sam2clip` from the cache, micro-batches of one image, no accumulation."""
    out = scratch / "sam2clip"
    command = ["train", "sam2clip", str(scratch / "images"), str(out), "--device", "cpu"]
    command += ["--trunk", str(scratch / "trunk.pth"), "--teacher-cache", str(scratch / "cache")]
    command += ["--batch", "1", "--accumulate", "1", "--max-steps", str(STEPS), "--workers", "0"]
    usage = run_command(command, threads)
    counts = count_parameters()
    step = read_step_seconds(out)
    return Measurement("sam2clip", counts["neck"], counts["backbone"], step, usage)


def measure_clip2sam(scratch: Path, threads: int) -> Measurement:
    """`clip2sam` by the COCO recipe on the neck of `sam2clip`: 40 prompts an image."""
    out = scratch / "clip2sam"
    command = ["train", "clip2sam", str(out), "--device", "cpu", "--recipe", "coco"]
    command += ["--data", str(scratch), "--classes", "all", "--vocab", ", ".join(NAMES)]
    command += ["--text-embeddings", str(scratch / "names.pth")]
    command += ["--clip", str(scratch / "trunk.pth"), "--sam", str(scratch / "sam_vit_b.pth")]
    command += ["--sam2clip", str(scratch / "sam2clip" / "sam2clip.safetensors")]
    command += ["--batch", "1", "--accumulate", "1", "--max-steps", str(STEPS), "--workers", "0"]
    usage = run_command(command, threads)
    counts = count_parameters()
    trained = counts["fpn_neck"] + counts["mask_decoder"]
    frozen = counts["backbone"] + counts["neck"] + counts["pe"]
    return Measurement("clip2sam", trained, frozen, read_step_seconds(out), usage)


def read_step_seconds(folder: Path) -> float:
    """Mean over the run, from its log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    return float(last["seconds"]) / int(last["step"])


def describe_hardware(threads: int) -> dict[str, str | int | float]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


STAGES = {
    "cache-teacher": measure_cache,
    "sam2clip": measure_sam2clip,
    "clip2sam": measure_clip2sam,
}


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--out", type=Path, help="results of earlier calls in it are kept")
    arguments = parser.parse_args()
    scratch: Path = arguments.scratch
    write_images(scratch / "images")
    write_annotations(scratch)
    write_weights(scratch)
    print(
        f"{'stage':<22}{'trained':>14}{'frozen':>14}{'peak GiB':>10}{'s/step':>9}{'s in all':>10}"
    )
    for name in arguments.stages:
        hardware = describe_hardware(arguments.threads)
        row = STAGES[name](scratch, arguments.threads)
        print(
            f"{row.stage:<22}{row.trained_parameters:>14,}{row.frozen_parameters:>14,}"
            f"{row.usage.peak_gib:>10.2f}{row.seconds_per_step:>9.1f}{row.usage.seconds:>10.1f}"
            f"{row.usage.cpu_seconds:>8.0f}"
        )
        if arguments.out:
            known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
            known[name] = {**asdict(row), "hardware": hardware}
            arguments.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
