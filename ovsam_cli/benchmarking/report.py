"""A suite's rows as JSON, as a table and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ovsam_cli.benchmarking.comparison import Comparison, Parity, describe_ratio
from ovsam_cli.benchmarking.measurement import Measurement, Row, Skipped, is_target_met
from ovsam_cli.benchmarking.plot import draw_ratios
from ovsam_cli.benchmarking.suites import BenchReport
from ovsam_cli.outputs.files import write_whole_file

SECONDS = {"core": "core s", "wall": "s", "cuda": "s"}
HEADER = ("key", "what", "baseline", "ours", "figure (range)", "target", "checked")


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row as text.

    Attributes:
        cells: one for each of `HEADER`.
        is_void: a check failed, so there is no figure.
        is_target_met: None without a target or a figure.
    """

    cells: tuple[str, ...]
    is_void: bool
    is_target_met: bool | None


def build_table(rows: Sequence[Row]) -> list[TableRow]:
    """The rows as text; a row whose checks failed says which, in place of its figure."""
    return [_describe(row) for row in rows]


def _describe(row: Row) -> TableRow:
    if isinstance(row, Skipped):
        cells = (row.key, row.name, "", "", "not measured", "", row.reason)
        return TableRow(cells, is_void=False, is_target_met=None)
    met = is_target_met(row)
    if isinstance(row, Comparison):
        unit = SECONDS[row.clock]
        cells = (
            row.key,
            row.name,
            f"{_number(statistics.median(row.baseline_seconds))} {unit}",
            f"{_number(statistics.median(row.our_seconds))} {unit}",
            f"{describe_ratio(row)}{' x' if row.is_valid else ''}",
            _describe_target(row.target, "x", met, higher_is_better=True),
            _describe_checks(row.parity),
        )
    else:
        cells = (
            row.key,
            row.name,
            "",
            "",
            _describe_figure(row),
            _describe_target(row.target, row.unit, met, higher_is_better=row.higher_is_better),
            _describe_checks(row.checks),
        )
    return TableRow(cells, is_void=not row.is_valid, is_target_met=met)


def _describe_figure(row: Measurement) -> str:
    """`0.12 (0.11-0.13) s`, or the check that failed."""
    if not row.is_valid:
        failed = [one for one in row.checks if not one.is_passed]
        return "void: " + ", ".join(f"{one.name} {one.value:g}" for one in failed)
    low, high = min(row.values), max(row.values)
    spread = f" ({_number(low)}-{_number(high)})" if len(row.values) > 1 else ""
    return f"{_number(row.value)}{spread} {row.unit}".rstrip()


def _describe_target(
    target: float | None, unit: str, met: bool | None, *, higher_is_better: bool
) -> str:
    if target is None:
        return ""
    verdict = {True: ", met", False: ", missed", None: ""}[met]
    return f"{'>=' if higher_is_better else '<='} {_number(target)} {unit}".rstrip() + verdict


def _describe_checks(checks: Sequence[Parity]) -> str:
    return "; ".join(f"{one.name}: {_number(one.value)}" for one in checks)


def _number(value: float) -> str:
    """Three digits that count."""
    if 100 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.3g}"


def render_markdown(report: BenchReport) -> str:
    """The page with machine, table and notes."""
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages)
    gpu = machine.gpu_from_driver or machine.gpu or "none"
    lines = [
        f"# `ovsam bench --suite {report.suite}` on {machine.gpu or machine.cpu}",
        "",
        f"- date {machine.date}, commit {machine.commit or 'unknown'}",
        f"- device {machine.device}, preset `{report.preset}` (random weights)",
        f"- CPU {machine.cpu}, {machine.num_cores} cores, {machine.memory_gib} GiB, "
        f"load {machine.load} before the start, {machine.num_threads} torch threads",
        f"- GPU {gpu}",
        f"- Python {machine.python}, {packages}",
        "",
        f"Medians of {report.rounds} round(s) that took turns, lowest and highest in brackets. A "
        "row whose check fails has no figure. Core seconds count the work of all threads.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
    ]
    for row in build_table(report.rows):
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells) + " |")
    notes = [(row.key, row.name, row.note) for row in report.rows if not isinstance(row, Skipped)]
    lines += ["", "Notes:", ""]
    lines += [f"- {key} {name}: {note}" for key, name, note in notes if note]
    return "\n".join(lines) + "\n"


def render_json(report: BenchReport) -> str:
    """Everything that was measured, also of void rows; figures only of valid ones."""
    rows = []
    for row in report.rows:
        fields: dict[str, object] = {"kind": type(row).__name__.lower(), **asdict(row)}
        if not isinstance(row, Skipped):
            fields["is_valid"] = row.is_valid
            fields["is_target_met"] = is_target_met(row)
            if row.is_valid:
                figure = row.ratio if isinstance(row, Comparison) else row.value
                fields["ratio" if isinstance(row, Comparison) else "value"] = figure
        rows.append(fields)
    content = {
        "suite": report.suite,
        "preset": report.preset,
        "rounds": report.rounds,
        "machine": asdict(report.machine),
        "rows": rows,
    }
    return json.dumps(content, indent=1) + "\n"


def write_report(report: BenchReport, folder: Path) -> tuple[Path, ...]:
    """Write `bench-SUITE-DEVICE-DATE.json`, `.md` and `.svg`.

    Args:
        report: of `run_suite`.
        folder: made where missing.

    Returns:
        The three files.

    Raises:
        OutputError: a file cannot be written.
    """
    device = report.machine.device.partition(":")[0]
    stem = f"bench-{report.suite}-{device}-{report.machine.date[:10]}"
    texts = {
        ".json": render_json(report),
        ".md": render_markdown(report),
        ".svg": draw_ratios(report.rows, title=f"ovsam bench, {report.suite}, {device}"),
    }
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{stem}{suffix}"
        with write_whole_file(path) as file:
            file.write(text.encode())
        paths.append(path)
    return tuple(paths)
