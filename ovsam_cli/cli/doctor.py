"""`ovsam doctor`: is everything there that labelling needs?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovsam_cli.cli.console import Console, ExitCode, one_line_errors

if TYPE_CHECKING:
    from ovsam_cli.doctor import Finding

MARKS = {"ok": "", "note": "note: ", "broken": "BROKEN: "}


def doctor(
    out: Annotated[
        Path | None, typer.Option(help="Output folder to come: can it be written, is there room?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only what is broken or worth knowing.")
    ] = False,
) -> None:
    """Look at programs, devices, weights and folders; exit 1 when something needed is broken."""
    console = Console(quiet=quiet, as_json=as_json)
    with one_line_errors(console):
        from ovsam_cli.doctor import examine

        topic, num_broken = "", 0
        for finding in examine(out):
            num_broken += finding.status == "broken"
            console.event("finding", {**asdict(finding)})
            if quiet and finding.status == "ok":
                continue
            if finding.topic != topic:
                topic = finding.topic
                console.result(topic)
            console.result(_describe(finding))
        console.event("finished", {"num_broken": num_broken})
        if num_broken:
            console.error(f"{num_broken} of the things above must be mended first")
            raise typer.Exit(ExitCode.STOPPED)


def _describe(finding: Finding) -> str:
    return f"  {finding.name:<26} {MARKS[finding.status]}{finding.text}"
