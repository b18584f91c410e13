"""How soon `ovsam --help` is there (S1), and a finished run that is started again (S2)."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from ovsam_cli.benchmarking.comparison import Comparison, Parity
from ovsam_cli.benchmarking.measurement import Measurement, Row
from ovsam_cli.benchmarking.ready_model import ModelFiles, ReadyModel, find_config, write_model
from ovsam_cli.benchmarking.samples import write_box_prompts, write_photos
from ovsam_cli.benchmarking.settings import BenchSettings
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.labelling.run import label_images
from ovsam_cli.labelling.run_facts import build_fingerprint
from ovsam_cli.labelling.run_folder import prepare_output

HELP_LIMIT = 0.15  # core seconds beyond the bare interpreter
RESUME_LIMIT = 0.005  # of the first run,
RESUME_IMAGES = 10_000  # of so many images; with fewer, Python's start is most of it
PHOTO_HW = (96, 128)
# Exit code 0 if torch was loaded for the help.
_IS_TORCH_LOADED = (
    "import sys\nsys.argv = ['ovsam', '--help']\nfrom ovsam_cli.__main__ import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\nsys.exit('torch' not in sys.modules)\n"
)


def measure_help(settings: BenchSettings) -> list[Row]:
    """S1: core seconds of `ovsam --help` beyond the bare interpreter."""
    pairs = [
        (run_core_seconds("-c", "pass"), run_core_seconds("-m", "ovsam_cli", "--help"))
        for _ in range(1 + settings.rounds)
    ][1:]
    is_loaded = Parity("torch loaded for --help", float(run_child("-c", _IS_TORCH_LOADED) == 0), 0)
    return [
        Measurement(
            "S1",
            "`ovsam --help` beyond the bare interpreter",
            "core s",
            tuple(shown - bare for bare, shown in pairs),
            (is_loaded,),
            target=HELP_LIMIT,
        )
    ]


def compare_help(settings: BenchSettings) -> list[Row]:
    """S1: a command line that imports torch first / ours."""
    pairs = [
        (run_core_seconds("-c", "import torch"), run_core_seconds("-m", "ovsam_cli", "--help"))
        for _ in range(1 + settings.rounds)
    ][1:]
    is_loaded = Parity("torch loaded for --help", float(run_child("-c", _IS_TORCH_LOADED) == 0), 0)
    baseline, ours = zip(*pairs, strict=True)
    return [
        Comparison(
            "S1",
            "`import torch` / `ovsam --help`",
            "core",
            baseline,
            ours,
            (is_loaded,),
            target=20.0,
            note="what a command line pays that imports torch first",
        )
    ]


def run_child(*arguments: str) -> int:
    """Exit code of a Python process that finds this package; what it says is dropped."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def run_core_seconds(*arguments: str) -> float:
    """Core seconds of such a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_child(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_resume(settings: BenchSettings) -> list[Row]:
    """S2: the same command on a finished folder; no image is read again."""
    count = settings.sizes.finished_images
    files = write_model(find_config("small"), settings.scratch / "models")
    photos = write_photos(settings.new_folder("photos"), count=count, hw=PHOTO_HW)
    prompts = write_box_prompts(
        photos.parent / "prompts.json", photos, hw=PHOTO_HW, boxes_per_image=1
    )
    request = replace(
        files.request(photos, settings.new_folder("resume") / "out", settings), prompts=str(prompts)
    )
    seconds_per_image = _finish_synthetically(request, files, settings)
    labelled = label_images(request).num_labelled_now  # writes the result files
    again, codes = [], 0
    for _ in range(settings.rounds):
        started = time.perf_counter()
        codes += run_child("-m", "ovsam_cli", *_to_arguments(request))
        again.append(time.perf_counter() - started)
    untouched = (
        Parity("images labelled again", labelled + label_images(request).num_labelled_now, 0),
        Parity("exit codes", codes, 0),
    )
    first = count * seconds_per_image
    share = tuple(seconds / first for seconds in again)
    note = f"first run: {count} x {seconds_per_image * 1e3:.1f} ms, the small model; the second "
    note += "with Python's start"
    return [
        Measurement("S2", f"start again, {count} finished images", "s", tuple(again), untouched),
        Measurement(
            "S2",
            f"start again / first run, {count} images",
            "",
            share,
            untouched,
            target=RESUME_LIMIT if count >= RESUME_IMAGES else None,
            note=note,
        ),
    ]


def _to_arguments(request: LabelRequest) -> list[str]:
    """The command line of the request above."""
    options = {
        "--prompts": request.prompts,
        "--vocab": request.vocabulary,
        "--model": request.model,
        "--devices": request.devices,
        "--text-embeddings": request.text_embeddings,
        "--out": request.out,
    }
    words = [str(word) for option in options.items() for word in option]
    return ["label", *request.images, *words]


def _finish_synthetically(
    request: LabelRequest, files: ModelFiles, settings: BenchSettings
) -> float:
    """Finish a run by labelling a few images and writing their rows for all others too.

    Returns:
        Wall seconds an image took.
    """
    model = ReadyModel.open(request)
    plan = plan_run(request)
    few = min(len(plan.records), 16)
    sample = RunPlan(
        replace(request, out=settings.new_folder("sample") / "out"),
        plan.records[:few],
        plan.vocabulary,
        None,
        plan.prompts,
        (),
    )
    seconds = model.label(sample).seconds / few
    fingerprint = build_fingerprint(plan, model.loaded, model.labeller)
    with (
        Journal.open(sample.request.out, fingerprint) as done,
        prepare_output(request.out) as lock,
        Journal.open(request.out, fingerprint, lock=lock) as journal,
    ):
        rows = list(done.iter_results(sample.records))
        for number, record in enumerate(plan.records):
            journal.append(replace(rows[number % few], record=record))
    return seconds
