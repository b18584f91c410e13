"""Which rows a suite has, and running them one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ovsam_cli.benchmarking.grid_filter import compare_grid_filters
from ovsam_cli.benchmarking.image_reading import compare_reading
from ovsam_cli.benchmarking.labelling_rows import compare_all_labelling
from ovsam_cli.benchmarking.machine import Machine, describe_machine
from ovsam_cli.benchmarking.measurement import Row, Skipped
from ovsam_cli.benchmarking.settings import BenchSettings
from ovsam_cli.benchmarking.startup import compare_help, measure_help, measure_resume

MakeRows = Callable[[BenchSettings], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that are measured together.

    Attributes:
        keys: of the design's table of targets.
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

    @property
    def num_void(self) -> int:
        """Rows whose proof of equality or checks failed."""
        return sum(not isinstance(row, Skipped) and not row.is_valid for row in self.rows)


def list_parts(settings: BenchSettings) -> list[Part]:
    """The parts of a suite on a device, in the order they run in."""
    is_full, is_cuda = settings.suite == "full", settings.device.type == "cuda"
    everywhere = [
        Part("C8", "grid filter", compare_grid_filters),
        Part("C9", "reading JPEG", compare_reading),
        Part("S1", "start-up", measure_help),
        Part("S2", "finished run", measure_resume),
    ]
    labelling = Part("G1-G5" if is_cuda else "C1-C3", "labelling", compare_all_labelling)
    only_full = [Part("S1", "start-up against torch", compare_help), labelling]
    parts = everywhere + (only_full if is_full else [])
    return [one for one in parts if not is_cuda or one.keys.startswith(("G", "C8"))]


def run_suite(
    settings: BenchSettings,
    *,
    only: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Measure all parts of a suite; one that fails becomes a row that says why.

    Args:
        settings: suite, device, sizes.
        only: keys such as "C8"; none for all parts.
        on_message: called before each part.
    """
    machine = describe_machine(settings.device)
    rows: list[Row] = []
    parts = [one for one in list_parts(settings) if not only or one.keys in only]
    for number, part in enumerate(parts, start=1):
        on_message(f"{number}/{len(parts)} {part.keys} {part.name}")
        rows += _measure(part, settings)
    return BenchReport(settings.suite, settings.preset, machine, tuple(rows))


def _measure(part: Part, settings: BenchSettings) -> Sequence[Row]:
    """The rows of a part; without the memory for it, one that says so."""
    try:
        return part.make(settings)
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [Skipped(part.keys, part.name, f"out of memory: {str(error).splitlines()[0]}")]
    finally:
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
