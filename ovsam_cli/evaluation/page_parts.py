"""What the pages of all evaluations share: style, tables and facts; no torch."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.html_page import render_page

PAGE_FILE = "report.html"
STYLE = """
main { max-width: 1180px; margin: 0 auto; } header p, section p { color: var(--faint); }
header p { margin: .2rem 0 1.2rem; } section { margin-bottom: 1rem; }
section p { margin: .4rem 0 0; font-size: 13px; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(360px, 100%),
  1fr)); margin-bottom: 1rem; } .charts section { margin: 0; }
.charts.pairs { grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.bar { fill: var(--s0); } .second { fill: var(--s1); } .range { stroke: var(--ink); }
.line { fill: none; stroke: var(--key); stroke-width: 2; } svg text.key { fill: var(--key); }
svg .c0 { --key: var(--s0); } svg .c1 { --key: var(--s1); } svg .c2 { --key: var(--s2); }
.ideal { stroke: var(--faint); stroke-dasharray: 4 4; } svg .name { fill: var(--ink); }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; white-space: nowrap; padding: .25rem .6rem;
  border-top: 1px solid var(--grid); }
th { color: var(--faint); font-weight: 500; border-top: 0; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
.wide { overflow-x: auto; } tr.all td { font-weight: 600; }
.cases { display: grid; gap: .8rem; margin-top: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); }
figure { margin: 0; background: var(--paper); border-radius: 6px; padding: .5rem; }
figure div { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
figure img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px;
  background: var(--grid); }
figcaption { font-size: 12.5px; margin-top: .35rem; overflow-wrap: anywhere; }
figcaption span { color: var(--faint); display: block; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .6rem 0 0;
  font-size: 14px; } dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
details summary { cursor: pointer; font-weight: 600; }
@media (max-width: 560px) { body { padding: .8rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; } }
"""


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text that scrolls sideways where it is too wide."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def render_failures(failures: Sequence[tuple[str, str]]) -> str:
    """(file name, message) of images that failed; nothing without any."""
    if not failures:
        return ""
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in failures
    )
    what = "1 image" if len(failures) == 1 else f"{len(failures)} images"
    return f"<section><h2>{what} failed</h2><dl>{rows}</dl></section>"


def write_html(out: Path, title: str, body: str) -> Path:
    """Write the page of an evaluation into its folder; its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = out / PAGE_FILE
    with write_whole_file(path) as file:
        file.write(render_page(title, body, style=STYLE).encode())
    return path


def render_facts(title: str, facts: Mapping[str, object]) -> str:
    """A section of names and values that can be folded; empty values are left out."""
    rows = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(_text(value))}</dd>"
        for key, value in facts.items()
        if value is not None and value != [] and value != {}
    )
    name = html.escape(title)
    return f"<section><details open><summary>{name}</summary><dl>{rows}</dl></details></section>"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
