"""Peak memory of whole runs by their number of prompts and of images: flat (G11, G12)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ovsam_cli.benchmarking.comparison import Parity
from ovsam_cli.benchmarking.labelling_rows import Work, label_anew, open_contenders, plan_work
from ovsam_cli.benchmarking.measurement import Measurement, Row, Skipped
from ovsam_cli.benchmarking.ready_model import VOCABULARY, find_config, write_model
from ovsam_cli.benchmarking.samples import write_box_prompts, write_photos
from ovsam_cli.benchmarking.settings import BenchSettings

PHOTO_HW = (96, 128)
FLAT_LIMIT = 1.05  # largest peak over the one of fewest
CUDA_LIMIT = 1.3


def measure_host_memory(settings: BenchSettings) -> list[Row]:
    """G12 and peaks by prompts: each number in a process of its own.

    Prompts by the bundled model: random weights draw noise, whose run lengths are thirty times as
    long as those of masks. Images by a small one of random weights, which is fast.
    """
    files = write_model(find_config("small"), settings.scratch / "models")
    small = ("--model", str(files.weights), "--text-embeddings", str(files.text_embeddings))
    sizes = settings.sizes
    by_prompts = [
        measure_run(settings, ("--model", "tiny"), hw=sizes.vga_hw, num_images=2, boxes=count)
        for count in sizes.memory_prompts
    ]
    by_images = [
        measure_run(settings, small, hw=PHOTO_HW, num_images=count, boxes=1)
        for count in sizes.memory_images
    ]
    return [
        _compare_peaks("G12", "prompts an image, tiny", sizes.memory_prompts, by_prompts),
        _compare_peaks("G12", "images, preset small", sizes.memory_images, by_images),
    ]


def _compare_peaks(
    key: str, name: str, counts: Sequence[int], peaks_mib: Sequence[float]
) -> Measurement:
    """The largest peak over the first one."""
    shown = ", ".join(
        f"{count}: {peak:.0f} MiB" for count, peak in zip(counts, peaks_mib, strict=True)
    )
    failed = Parity("runs that failed", sum(peak == 0 for peak in peaks_mib), 0)
    return Measurement(
        key,
        f"peak memory by {name}, largest / first",
        "x",
        (max(peaks_mib) / max(peaks_mib[0], 1e-9),),
        (failed,),
        target=FLAT_LIMIT,
        note=f"resident set of `ovsam label` on the CPU; {shown}",
    )


def measure_run(
    settings: BenchSettings,
    model: Sequence[str],
    *,
    hw: tuple[int, int],
    num_images: int,
    boxes: int,
) -> float:
    """Peak resident MiB of one `ovsam label` over made-up photos; 0 if it failed.

    Args:
        settings: where the photos and labels go.
        model: options that name it.
        hw: (height, width) of the photos.
        num_images, boxes: how many, and boxes on each.
    """
    folder = settings.new_folder("memory")
    photos = write_photos(folder / "photos", count=num_images, hw=hw)
    prompts = write_box_prompts(folder / "prompts.json", photos, hw=hw, boxes_per_image=boxes)
    command = [
        *(sys.executable, "-m", "ovsam_cli", "label", str(photos), "--quiet"),
        *(*model, "--vocab", VOCABULARY, "--prompts", str(prompts)),
        *("--out", str(folder / "labels"), "--devices", "cpu"),
    ]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss
    return usage.ru_maxrss / unit if child.returncode == 0 else 0.0


def measure_cuda_memory(settings: BenchSettings) -> list[Row]:
    """G11: peak GPU memory of many boxes over few, ours; and the plain order's over ours."""
    contenders = open_contenders(settings)
    sizes = settings.sizes
    few, many = sizes.boxes, sizes.grid_side**2
    target = settings.scratch / "plain.json"
    contenders.plain.model.to("cpu")  # each side is measured alone
    peaks = []
    for boxes in (few, many):
        work = Work("G11", "", sizes.vga_hw, boxes, 1)
        plan = plan_work(settings, contenders.request, work)
        peaks.append(_measure_peak(settings, partial(label_anew, settings, contenders.ours, plan)))
    plain = replace(contenders.plain, prompts_per_call=None)
    contenders.ours.labeller.model.to("cpu")
    contenders.plain.model.to(settings.device)
    plain_peak = _measure_peak(settings, lambda: plain.label(plan, target))
    if settings.device.type != "cuda":
        return [Skipped("G11", "GPU memory", "only CUDA counts the memory of tensors")]
    note = f"{peaks[0]:.0f} MiB with {few}, {peaks[1]:.0f} with {many}, plain {plain_peak:.0f}; "
    note += "weights included"
    return [
        Measurement(
            "G11",
            f"GPU memory, {many} boxes / {few} boxes, {settings.preset}",
            "x",
            (peaks[1] / max(peaks[0], 1e-9),),
            target=CUDA_LIMIT,
            note=note,
        ),
        Measurement(
            "G11",
            f"GPU memory, plain order / ours, {many} boxes at once",
            "x",
            (plain_peak / max(peaks[1], 1e-9),),
            target=8.0,
            higher_is_better=True,
            note=note,
        ),
    ]


def _measure_peak(settings: BenchSettings, work: Callable[[], object]) -> float:
    """Peak MiB of tensors on the device; 0 on a CPU, which does not count them."""
    if settings.device.type != "cuda":
        work()
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(settings.device)
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(settings.device) / 2**20
