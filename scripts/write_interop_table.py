"""Write docs/interop.md from what `make interop` saw: consumer x form x result, with versions.

python scripts/write_interop_table.py build/interop.json docs/interop.md
"""

from __future__ import annotations

import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

HEAD = """# Who reads our files

Made by `make interop` on {date} with Python {python}: each line is a test in `tests/interop` that
opened one of our files with the program itself. The masks are hard ones: a ring with a hole, an
object in three parts, squares that touch at a corner, the whole image, a single pixel.

*IoU* is the lowest of all masks against the true ones. Where the form cannot hold a hole, the ring
keeps 0.868; lower values are the reader's own: supervision draws polygons with their outline, and
ultralytics takes run lengths to contours, which cuts small objects: `ovsam export yolo-seg` is
better for it.

| program | version | file | read by | lowest mask IoU |
|---|---|---|---|---|
"""


def write_table(report: Path, target: Path) -> None:
    """Sort the lines by program and file, and write them below the head."""
    rows = json.loads(report.read_text())
    order = sorted(rows, key=lambda row: (row["package"].lower(), row["form"], row["what"]))
    lines = [
        f"| {row['package']} | {row['version']} | {row['form']} | {row['what']} "
        f"| {row['lowest_iou']:.3f} |"
        if row["is_mask"]
        else f"| {row['package']} | {row['version']} | {row['form']} | {row['what']} | |"
        for row in order
    ]
    head = HEAD.format(date=datetime.now(UTC).date(), python=platform.python_version())
    target.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), Path(sys.argv[2]))
