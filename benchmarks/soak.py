"""A long run under random kills: the same bytes, memory and open files that do not grow.

Makes small random pictures (one in a hundred is spoilt) and a small model of random weights, then
labels them three times with the real command, each phase into a folder of its own:

    undisturbed   one process, left alone
    killed        one process, killed, terminated or interrupted again and again, started again
    two workers   --devices cpu,cpu, whose workers are killed again and again

and compares `annotations.json` and `errors.jsonl` of all three byte for byte.

    scripts/soak [--images 10000] [--kills 20] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from soak_plot import draw_soak
from soak_watch import Phase, Sample, run_phase

from ovsam_cli.benchmarking.ready_model import find_config, write_model

SEED = 7
ONE_SPOILT_OF = 100
SAMPLES_KEPT = 300  # a phase, about


def write_pictures(folder: Path, count: int) -> Path:
    """Write pictures and a prompt file for them, one box each."""
    rng, entries = np.random.default_rng(SEED), []
    for number in range(count):
        name = f"{number // 1000:03d}/{number:06d}.png"
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (32 + number % 24, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
        if number % ONE_SPOILT_OF == ONE_SPOILT_OF - 1:
            path.write_bytes(path.read_bytes()[:500])
        entries.append({"file_name": name, "boxes": [[4, 4, 40, 28]]})
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps({"images": entries}))
    return prompts


def run_soak(folder: Path, *, num_images: int, num_kills: int) -> list[Phase]:
    """Run all three phases."""
    prompts = write_pictures(folder, num_images)
    files = write_model(find_config("small"), folder / "model")
    rng, between = random.Random(SEED), num_images // (num_kills + 1)
    common = [
        *(sys.executable, "-m", "ovsam_cli", "label", str(folder / "photos"), "--quiet"),
        *("--prompts", str(prompts), "--vocab", "coco", "--model", str(files.weights)),
        *("--text-embeddings", str(files.text_embeddings), "--no-report"),
    ]

    def make_phase(name: str, devices: str) -> Phase:
        out = folder / name.replace(" ", "-")
        return Phase(name, [*common, "--devices", devices, "--out", str(out)], out)

    phases = [
        make_phase("undisturbed", "cpu"),
        make_phase("killed", "cpu"),
        make_phase("two workers", "cpu,cpu"),
    ]
    for phase, kills in zip(phases, (0, num_kills, num_kills // 2), strict=True):
        only_workers = phase.name == "two workers"
        run_phase(
            phase,
            rng,
            num_kills=kills,
            rows_between_kills=between * (2 if only_workers else 1),
            only_workers=only_workers,
        )
        print(
            f"{phase.name}: {phase.seconds:.0f} s, {phase.cpu_seconds:.0f} core-s, "
            f"{len(phase.kills)} kills, {len(phase.exit_codes)} starts",
            flush=True,
        )
    return phases


def compare_files(phases: Sequence[Phase]) -> dict[str, object]:
    """Checksums of the result files, and whether they are equal."""
    found: dict[str, object] = {}
    for name in ("annotations.json", "errors.jsonl"):
        digests = [hashlib.sha256((p.out / name).read_bytes()).hexdigest() for p in phases]
        found[name] = {"sha256": digests[0], "equal_in_all": len(set(digests)) == 1}
    return found


def measure_growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Memory and open files early and late in a phase that one process did from end to end."""
    working = [sample for sample in samples if sample.num_rows]
    fifth = max(1, len(working) // 5)
    early, late = working[fifth : 2 * fifth] or working, working[-fifth:]
    return {
        "rss_mb_second_fifth": statistics.median(s.largest_rss_mb for s in early),
        "rss_mb_last_fifth": statistics.median(s.largest_rss_mb for s in late),
        "files_second_fifth": statistics.median(s.most_files for s in early),
        "files_last_fifth": statistics.median(s.most_files for s in late),
    }


def describe_machine() -> dict[str, object]:
    """The hardware, without names."""
    return {
        "cpu": f"{os.cpu_count()}-core CPU ({platform.machine()}), shared with other work",
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_result(phases: Sequence[Phase], out: Path, *, num_images: int) -> bool:
    """Write `soak-DATE.json` and `.svg`; whether all files were equal."""
    date = datetime.now(UTC).date().isoformat()
    files = compare_files(phases)
    rows = []
    for phase in phases:
        growth = measure_growth(phase.samples)
        phase.samples = phase.samples[:: max(1, len(phase.samples) // SAMPLES_KEPT)]
        row = asdict(phase) | {"growth": growth}
        del row["args"], row["out"]
        rows.append(row)
    result = {
        "date": date,
        "machine": describe_machine(),
        "num_images": num_images,
        "files": files,
        "phases": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"soak-{date}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    title = f"Soak: {num_images:,} pictures, orange lines are kills"
    (out / f"soak-{date}.svg").write_text(draw_soak(phases, title=title))
    return all(isinstance(f, dict) and f["equal_in_all"] for f in files.values())


def main() -> None:
    """Parse, run, write, and exit 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20, help="half as many go to workers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()
    # A shell makes its background jobs ignore this one, and `ovsam` respects what it inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        phases = run_soak(Path(folder), num_images=asked.images, num_kills=asked.kills)
        is_equal = write_result(phases, asked.out, num_images=asked.images)
    print("all files equal" if is_equal else "FILES DIFFER")
    sys.exit(0 if is_equal else 1)


if __name__ == "__main__":
    main()
