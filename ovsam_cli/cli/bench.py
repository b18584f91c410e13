"""`ovsam bench`: speed on this machine, each figure beside the proof that both sides agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors

if TYPE_CHECKING:
    from ovsam_cli.benchmarking.suites import BenchReport

Suite = Literal["quick", "full"]
Preset = Literal["auto", "small", "rn50x16"]
Scale = Literal["auto", "minimal"]


def bench(
    out: Annotated[Path, typer.Option(help="Folder for JSON, table and plot.")],
    suite: Annotated[
        Suite, typer.Option(help="quick: two minutes; full: also whole models, memory.")
    ] = "quick",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0.")] = "auto",
    preset: Annotated[
        Preset,
        typer.Option(help="Sizes of the model, random weights; auto: small, with full rn50x16."),
    ] = "auto",
    only: Annotated[str, typer.Option(help="Keys of the rows, such as C8,S1; default: all.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the models.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side takes.")] = 5,
    scale: Annotated[
        Scale, typer.Option(help="minimal: only to try the command out; figures say nothing.")
    ] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")] = False,
) -> None:
    """Compare with plain baselines in turns; exit 1 if a result does not agree."""
    console = Console(quiet=quiet)
    with one_line_errors(console):
        from ovsam_cli.benchmarking.running import BenchRequest, run_request
        from ovsam_cli.cli.memory import keep_freed_memory

        keep_freed_memory()
        request = BenchRequest(
            suite=suite,
            device=device,
            preset=preset,
            only=tuple(key.strip() for key in only.split(",") if key.strip()),
            threads=threads,
            rounds=rounds,
            is_minimal=scale == "minimal",
            out=out,
        )
        report, paths = run_request(request, on_message=console.say)
        _print_table(report)
        for path in paths:
            console.result(str(path))
        if report.num_void:
            console.error(f"{report.num_void} row(s) without a figure: the results do not agree")
            raise typer.Exit(ExitCode.STOPPED)


def _print_table(report: BenchReport) -> None:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from ovsam_cli.benchmarking.report import HEADER, build_table

    table = Table(title=f"{report.machine.gpu or report.machine.cpu}, {report.machine.date}")
    for name in HEADER[:-1]:
        table.add_column(name, overflow="fold")
    for row in build_table(report.rows):
        style = "red" if row.is_void else "yellow" if row.is_target_met is False else ""
        table.add_row(*row.cells[:-1], style=style)
    RichConsole().print(table)
