"""Which rows a suite has, and running them one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ovsam_cli.benchmarking.grid_filter import compare_grid_filters
from ovsam_cli.benchmarking.image_reading import compare_reading
from ovsam_cli.benchmarking.labelling_rows import compare_cpu_labelling, compare_cuda_labelling
from ovsam_cli.benchmarking.machine import Machine, describe_machine
from ovsam_cli.benchmarking.mask_rows import compare_mask_encoding
from ovsam_cli.benchmarking.measurement import Row, Skipped
from ovsam_cli.benchmarking.memory import measure_cuda_memory, measure_host_memory
from ovsam_cli.benchmarking.network_rows import compare_network_parts, compare_trunks
from ovsam_cli.benchmarking.network_speed import (
    measure_cuda_pipeline,
    measure_efficiency,
    measure_scaling,
    measure_tiny,
    measure_tiny_scaling,
)
from ovsam_cli.benchmarking.sam_rows import compare_with_sam
from ovsam_cli.benchmarking.settings import BenchSettings
from ovsam_cli.benchmarking.startup import compare_help, measure_help, measure_resume
from ovsam_cli.errors import InputError

MakeRows = Callable[[BenchSettings], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are measured together.

    Attributes:
        keys: of the design's table of targets, with commas.
        name: for messages.
        make: measures them.
    """

    keys: str
    name: str
    make: MakeRows


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All rows of a suite and where they were measured."""

    suite: str
    preset: str
    machine: Machine
    rows: tuple[Row, ...]
    rounds: int

    @property
    def num_void(self) -> int:
        """Rows whose proof of equality or checks failed."""
        return sum(not isinstance(row, Skipped) and not row.is_valid for row in self.rows)


def list_parts(settings: BenchSettings) -> list[Part]:
    """The parts of a suite on a device, in the order they run in."""
    is_full, is_cuda = settings.suite == "full", settings.device.type == "cuda"
    return _list_cuda_parts(is_full) if is_cuda else _list_cpu_parts(is_full)


def find_parts(settings: BenchSettings, only: Sequence[str]) -> list[Part]:
    """The parts that have these keys, those of other suites and devices too; none for a suite.

    Raises:
        InputError: a key is no part's.
    """
    if not only:
        return list_parts(settings)
    every = [*list_parts(settings), *_list_cuda_parts(True), *_list_cpu_parts(True)]
    by_keys: dict[str, Part] = {}
    for part in every:
        by_keys.setdefault(part.keys, part)
    known = {key for keys in by_keys for key in keys.split(",")}
    unknown = sorted(set(only) - known)
    if unknown:
        raise InputError(
            f"--only: {', '.join(unknown)} is no key of a row; there is {', '.join(sorted(known))}"
        )
    return [part for part in by_keys.values() if set(part.keys.split(",")) & set(only)]


def _list_cpu_parts(is_full: bool) -> list[Part]:
    quick = [
        Part("C4,C5", "network parts", compare_network_parts),
        Part("C6,C7", "masks to run lengths", compare_mask_encoding),
        Part("C8", "grid filter", compare_grid_filters),
        Part("C9", "reading JPEG", compare_reading),
        Part("S1", "start-up", measure_help),
        Part("S2", "finished run", measure_resume),
        Part("tiny", "tiny, files to files", measure_tiny),
        Part("G9", "prompts", measure_scaling),
    ]
    slow = [
        Part("S1-torch", "start-up against torch", compare_help),
        Part("trunk", "image trunk", compare_trunks),
        Part("G9-tiny", "prompts, tiny", measure_tiny_scaling),
        Part("G12", "memory", measure_host_memory),
        Part("C1", "labelling with a box", partial(compare_cpu_labelling, key="C1")),
        Part("C2", "labelling with boxes", partial(compare_cpu_labelling, key="C2")),
        Part("C3", "labelling by a grid", partial(compare_cpu_labelling, key="C3")),
        Part("C3-large", "large by a grid", partial(compare_cpu_labelling, key="C3-large")),
        Part("G6,G7", "SAM and CLIP", compare_with_sam),
    ]
    return quick + slow if is_full else quick


def _list_cuda_parts(is_full: bool) -> list[Part]:
    quick = [
        Part("C4,C5", "network parts", compare_network_parts),
        Part("trunk", "image trunk", compare_trunks),
        Part("C8", "grid filter", compare_grid_filters),
        Part("G8", "use of the GPU", measure_efficiency),
    ]
    slow = [
        Part("G1,G2,G3,G4,G5", "labelling", compare_cuda_labelling),
        Part("G9", "prompts", measure_scaling),
        Part("G9-tiny", "prompts, tiny", measure_tiny_scaling),
        Part("G10", "pipeline", measure_cuda_pipeline),
        Part("G11", "GPU memory", measure_cuda_memory),
        Part("G6,G7", "SAM and CLIP", compare_with_sam),
    ]
    return quick + slow if is_full else quick


def run_suite(
    settings: BenchSettings,
    *,
    only: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda text: None,
    on_part_done: Callable[[BenchReport], None] = lambda report: None,
) -> BenchReport:
    """Measure all parts of a suite; one that fails becomes a row that says why.

    Args:
        settings: suite, device, sizes.
        only: keys such as "C8"; none for all parts.
        on_message: called before each part.
        on_part_done: called after each part but the last with the rows so far.

    Raises:
        InputError: a key is no part's.
    """
    parts = find_parts(settings, only)
    machine = describe_machine(settings.device)
    rows: tuple[Row, ...] = ()
    for number, part in enumerate(parts, start=1):
        if rows:
            on_part_done(_report(settings, machine, rows))
        on_message(f"{number}/{len(parts)} {part.keys} {part.name}")
        rows += tuple(_measure(part, settings))
    return _report(settings, machine, rows)


def _report(settings: BenchSettings, machine: Machine, rows: tuple[Row, ...]) -> BenchReport:
    return BenchReport(settings.suite, settings.preset, machine, rows, settings.rounds)


def _measure(part: Part, settings: BenchSettings) -> Sequence[Row]:
    """The rows of a part; without the memory for it, one that says so."""
    try:
        return part.make(settings)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [Skipped(part.keys, part.name, f"out of memory: {str(error).splitlines()[0]}")]
    finally:
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
