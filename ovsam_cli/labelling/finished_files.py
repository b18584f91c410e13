"""A finished run's files need not be written again when the same command is run once more.

OUT/.ovsam/finished.json      what the files were written from, and their checksums
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from ovsam_cli import __version__
from ovsam_cli.errors import OutputError
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.journal_index import FINISHED_FILE
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_files import (
    ANNOTATIONS_FILE,
    ERRORS_FILE,
    REPORT_FILE,
    RUN_FILE,
    RunSummary,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.outputs.coco import CocoSummary
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import ImageRecord


def compute_source_hash(plan: RunPlan, records: Iterable[ImageRecord], journal: Journal) -> str:
    """Of all that decides a run's files beside the fingerprint: rows, images, their form."""
    digest = hashlib.sha256()
    options = plan.request.options
    form = [options.masks, options.report]
    source = [__version__, *form, journal.list_parts(), list(plan.unmatched)]
    digest.update(json.dumps(source).encode())
    for record in records:
        digest.update(json.dumps([record.image_id, record.file_name]).encode())
    return digest.hexdigest()


def write_finished(summary: RunSummary, source_hash: str) -> None:
    """Note that a run's files are complete."""
    names = [ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE, REPORT_FILE]
    content = {
        "source": source_hash,
        "files": _hash_files(summary.out, [n for n in names if (summary.out / n).exists()]),
        "summary": asdict(replace(summary, out=Path())) | {"out": None},
    }
    # Without it the files are written once more the next time, which harms nobody.
    with suppress(OutputError), write_whole_file(_finished_path(summary.out)) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def read_finished(out: Path, source_hash: str) -> RunSummary | None:
    """What was noted of a folder's files; None where they, or their source, are others now."""
    try:
        content = json.loads(_finished_path(out).read_bytes())
        if content["source"] != source_hash or content["files"] != _hash_files(
            out, content["files"]
        ):
            return None
        fields = content["summary"]
        return RunSummary(**fields | {"out": out, "coco": CocoSummary(**fields["coco"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never written, damaged, or by another version: the files are written anew


def _hash_files(out: Path, names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with open(out / name, "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _finished_path(out: Path) -> Path:
    return out / STATE_FOLDER / FINISHED_FILE
