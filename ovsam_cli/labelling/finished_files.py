"""Files of a finished run need not be written again when the same command is run again; no torch.

OUT/.ovsam/finished.json      what the files were written from, and their checksums
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from ovsam_cli import __version__
from ovsam_cli.errors import OutputError
from ovsam_cli.labelling.journal import Journal, read_state_settings
from ovsam_cli.labelling.journal_index import FINISHED_FILE
from ovsam_cli.labelling.journal_part import list_parts
from ovsam_cli.labelling.kept_threads import keep_threads
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_description import compute_images_hash
from ovsam_cli.labelling.run_files import (
    ANNOTATIONS_FILE,
    ERRORS_FILE,
    REPORT_FILE,
    RUN_FILE,
    RunSummary,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.score_calibration import calibration_path
from ovsam_cli.outputs.coco import CocoSummary
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
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


def write_finished(
    summary: RunSummary, source_hash: str, plan: RunPlan, weights: Sequence[str]
) -> None:
    """Note that a run's files are complete.

    Args:
        summary: what the run came to.
        source_hash: from `compute_source_hash`.
        plan: that was followed.
        weights: paths of the model's files.
    """
    names = [ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE, REPORT_FILE]
    content = {
        "source": source_hash,
        "asked": _describe_asked(plan, weights),
        "weights": list(weights),
        "files": _hash_files(summary.out, [n for n in names if (summary.out / n).exists()]),
        "summary": asdict(replace(summary, out=Path())) | {"out": None},
    }
    # Without it the files are written once more the next time, which harms nobody.
    with suppress(OutputError), write_whole_file(_finished_path(summary.out)) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def recall_finished(plan: RunPlan) -> RunSummary | None:
    """What a run came to that the very same command has finished; asks neither weights nor images.

    Returns:
        None where anything may be different: then the run is opened, and compared setting by
        setting.
    """
    if plan.request.restart or plan.request.retry_failed or plan.send_to is not None:
        return None

    def is_same(note: Mapping[str, JsonValue]) -> bool:
        weights = note["weights"]
        return isinstance(weights, list) and note["asked"] == _describe_asked(
            plan, [str(path) for path in weights]
        )

    found = _read_note(plan.out, is_same)
    return None if found is None else replace(found, seconds=0.0, num_labelled_now=0)


def _describe_asked(plan: RunPlan, weights: Sequence[str]) -> dict[str, JsonValue]:
    """All that results come from, by what the disk says of it without being read."""
    request = keep_threads(plan, read_state_settings(plan.out)).request
    base = plan.base_vocabulary
    sources = [plan.vocabulary.sha256(), base.sha256() if base else ""]
    sources += [plan.prompts.sha256 if plan.prompts else "", compute_images_hash(plan.records)]
    asked = [__version__, repr(replace(request, command=None)), *sources, *plan.unmatched]
    inputs = [Path(path) for path in weights]
    inputs += [calibration_path(inputs)] if inputs else []
    inputs += [request.text_embeddings] if request.text_embeddings else []
    return {
        "command": hashlib.sha256("\0".join(asked).encode(errors="surrogateescape")).hexdigest(),
        "inputs": [_describe_file(path) for path in inputs],
        "parts": [_describe_file(path) for path in list_parts(plan.out / STATE_FOLDER)],
    }


def _describe_file(path: Path) -> list[JsonValue]:
    """Size and time of last change; without them where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def read_finished(out: Path, source_hash: str) -> RunSummary | None:
    """What was noted of a folder's files; None where they, or their source, are others now."""
    return _read_note(out, lambda note: note["source"] == source_hash)


def _read_note(out: Path, is_same: Callable[[Mapping[str, JsonValue]], bool]) -> RunSummary | None:
    """The summary in a note that is of the same run, whose files are as they were."""
    try:
        note = json.loads(_finished_path(out).read_bytes())
        if not is_same(note) or note["files"] != _hash_files(out, note["files"]):
            return None
        fields = note["summary"]
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
