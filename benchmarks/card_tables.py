"""Markdown tables, and their places in a card: between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.bootstrap import Estimate
from ovsam_cli.evaluation.figure_tables import format_interval, format_share
from ovsam_cli.outputs.files import write_whole_file


def draw_markdown(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, num_grouped: int = 1
) -> str:
    """A table; of the first `num_grouped` cells those like the row's above are left empty."""
    shown = [[*row] for row in rows]
    for number in range(len(rows) - 1, 0, -1):
        for column in range(num_grouped):
            if rows[number][: column + 1] == rows[number - 1][: column + 1]:
                shown[number][column] = ""
    lines = [[*header], ["---"] * len(header), *shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_bold(estimate: Estimate | None) -> str:
    """`**.631** [.611, .651]`; empty without an estimate."""
    if estimate is None:
        return ""
    return f"**{format_share(estimate.mean)}** {format_interval(estimate)}"


def fill_card(card: Path, parts: Mapping[str, str]) -> None:
    """Put texts between their markers in a Markdown file; the rest stays.

    Args:
        card: the file.
        parts: text by name of the marker.

    Raises:
        InputError: the file is missing, or has not each marker once, in order.
        OutputError: the file cannot be written.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{card}: cannot be read: {error.strerror}") from error
    for name, part in parts.items():
        before, part_before, after = _split(card, text, name)
        if part_before != part:
            text = f"{before}<!-- {name} -->\n\n{part}\n\n<!-- /{name} -->{after}"
    with write_whole_file(card) as file:
        file.write(text.encode())


def read_card(card: Path, name: str) -> str:
    """What stands between the markers of a name.

    Raises:
        InputError: it has not each marker once, in order.
    """
    return _split(card, card.read_text(encoding="utf-8"), name)[1]


def _split(card: Path, text: str, name: str) -> tuple[str, str, str]:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_start, rest = text.partition(start)
    inside, found_end, after = rest.partition(end)
    if not (found_start and found_end) or start in rest or end in after:
        raise InputError(f"{card}: expected {start} and then {end}, each once")
    return before, inside.strip("\n"), after
