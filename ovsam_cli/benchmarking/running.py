"""One call of `ovsam bench`: what was asked for, checked, measured and written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ovsam_cli.benchmarking.report import write_report
from ovsam_cli.benchmarking.settings import (
    MINIMAL,
    QUICK,
    BenchSettings,
    PresetName,
    Sizes,
    SuiteName,
)
from ovsam_cli.benchmarking.suites import BenchReport, run_suite
from ovsam_cli.labelling.device import choose_device


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What a user asks of a run of benchmarks.

    Attributes:
        suite: which rows.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        preset: sizes of the model; `auto` is small in the quick suite, else the published one's.
        only: keys of rows; none for all.
        threads: of torch.
        rounds: of each comparison.
        is_minimal: the least data, to try the command out.
        out: folder for the files.
    """

    suite: SuiteName
    device: str
    preset: Literal["auto", "small", "rn50x16"]
    only: tuple[str, ...]
    threads: int
    rounds: int
    is_minimal: bool
    out: Path


def run_request(
    request: BenchRequest, *, on_message: Callable[[str], None]
) -> tuple[BenchReport, tuple[Path, ...]]:
    """Run a suite and write its files, after each part those of the rows so far.

    Raises:
        InputError: the device is not there, or a key is none of a row.
        OutputError: the folder cannot be written.
    """

    def write_so_far(report: BenchReport) -> None:
        write_report(report, request.out)  # a full suite takes over an hour

    device = choose_device(request.device)
    by_suite: PresetName = "small" if request.suite == "quick" else "rn50x16"
    sizes = QUICK if request.suite == "quick" else Sizes()
    torch.set_num_threads(request.threads)
    with tempfile.TemporaryDirectory(prefix="ovsam-bench-") as scratch:
        settings = BenchSettings(
            suite=request.suite,
            device=device,
            preset=by_suite if request.preset == "auto" else request.preset,
            sizes=MINIMAL if request.is_minimal else sizes,
            scratch=Path(scratch),
            rounds=request.rounds,
        )
        request.out.mkdir(parents=True, exist_ok=True)
        report = run_suite(
            settings,
            only=request.only,
            on_message=on_message,
            on_part_done=write_so_far,
        )
    return report, write_report(report, request.out)
