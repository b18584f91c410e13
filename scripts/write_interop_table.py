"""Write what `make interop` saw: consumer x form x result, with versions.

    python scripts/write_interop_table.py [build/interop.json]

With the lines that the tests have recorded it writes docs/interop.json anew, with today's date.
From that file come docs/interop.md and the table of the README; a test compares them.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parent.parent
RESULTS, PAGE, README = (ROOT / "docs/interop.json", ROOT / "docs/interop.md", ROOT / "README.md")
BLOCK = re.compile(r"(?<=<!-- interop -->\n).*?(?=<!-- /interop -->)", flags=re.DOTALL)
EXACT = 0.9995  # IoU that is 1.000 as it is shown

HEAD = """# Who reads our files

Made by `make interop` on {date} with Python {python}: each line is a test in `tests/interop` that
opened one of our files with the program itself. The masks are hard ones: a ring with a hole, an
object in three parts, squares that touch at a corner, the whole image, a single pixel.

*IoU* is the lowest of all masks against the true ones. Where the form cannot hold a hole, the ring
keeps 0.868; lower values are the reader's own: supervision draws polygons with their outline, and
ultralytics takes run lengths to contours, which cuts small objects: `ovsam export yolo-seg` is
better for it. X-AnyLabeling itself is no library that a test could ask: its files are opened by
labelme, whose form they extend. Nothing here was tried against a running server.

| program | version | file | read by | lowest mask IoU |
|---|---|---|---|---|
"""
README_HEAD = """
| program | masks to the pixel | less, with the lowest IoU | without masks |
|---|---|---|---|
"""


class Row(TypedDict):
    """What one test saw; the IoU is None where no masks were compared."""

    package: str
    version: str
    form: str
    what: str
    lowest_iou: float | None


class Results(TypedDict):
    """Content of docs/interop.json."""

    date: str
    python: str
    rows: list[Row]


def take_results(report: Path) -> Results:
    """The lines of a report of the tests, sorted, with date and Python of today."""
    rows: list[Row] = json.loads(report.read_text(encoding="utf-8"))
    rows.sort(key=lambda row: (row["package"].lower(), row["form"], row["what"]))
    date = str(datetime.now(UTC).date())
    return {"date": date, "python": platform.python_version(), "rows": rows}


def make_page(results: Results) -> str:
    """docs/interop.md."""
    lines = [
        f"| {row['package']} | {row['version']} | {row['form']} | {row['what']} "
        f"| {_describe_iou(row)} |"
        for row in results["rows"]
    ]
    head = HEAD.format(date=results["date"], python=results["python"])
    return head + "".join(f"{' '.join(line.split())}\n" for line in lines)


def make_readme_table(results: Results) -> str:
    """A line a program: which forms keep their masks in it."""
    lines = []
    for package in dict.fromkeys(row["package"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["package"] == package]
        exact = dict.fromkeys(row["form"] for row in rows if (row["lowest_iou"] or 0) >= EXACT)
        less = {
            row["form"]: row["lowest_iou"]
            for row in rows
            if row["lowest_iou"] is not None and row["lowest_iou"] < EXACT
        }
        plain = dict.fromkeys(row["form"] for row in rows if row["lowest_iou"] is None)
        cells = (
            f"{package} {rows[0]['version']}",
            ", ".join(exact),
            ", ".join(f"{form} {iou:.2f}".replace(" 0.", " .") for form, iou in less.items()),
            ", ".join(form for form in plain if form not in exact and form not in less),
        )
        lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return README_HEAD + "\n".join(lines) + "\n\n"


def _describe_iou(row: Row) -> str:
    return "" if row["lowest_iou"] is None else f"{row['lowest_iou']:.3f}"


def main(arguments: list[str]) -> None:
    """Write all three, or the two pages alone."""
    if arguments:
        results = take_results(Path(arguments[0]))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(make_page(results), encoding="utf-8")
    text, table = README.read_text(encoding="utf-8"), make_readme_table(results)
    assert BLOCK.search(text), f"{README} has no place for the table"
    README.write_text(BLOCK.sub(lambda _: table, text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
