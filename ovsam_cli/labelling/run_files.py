"""What a run leaves in its output folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ovsam_cli import __version__
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_facts import RunFacts, build_coco_options
from ovsam_cli.outputs.coco import CocoCategory, CocoSummary, CocoWriter
from ovsam_cli.outputs.files import output_error, write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.previews import write_preview
from ovsam_cli.outputs.report import ReportWriter
from ovsam_cli.structures import ImageRecord, ImageResult

ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE = "annotations.json", "errors.jsonl", "run.json"
REPORT_FILE = "report.html"
PREVIEW_FOLDER = "previews"
MAX_NAME_BYTES = 240  # file systems take 255; the preview's suffixes come behind


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a finished run came to.

    Attributes:
        out: the output folder.
        num_images, num_failed: of the whole run, earlier starts included.
        num_labelled_now: images that this start worked on.
        num_notices: prompts that could not be used, and other notices about images.
        coco: what `annotations.json` holds.
        seconds: this start's labelling time.
        send_to: URL that the result files were sent to.
    """

    out: Path
    num_images: int
    num_failed: int
    num_labelled_now: int
    num_notices: int
    coco: CocoSummary
    seconds: float
    send_to: str | None = None


class PreviewWriter:
    """Writes overlays of the first images of a run, as many as were asked for.

    Shards draw those that are theirs.
    """

    def __init__(self, plan: RunPlan, categories: Sequence[CocoCategory]) -> None:
        wanted = plan.request.options.num_previews
        self._folder = plan.out / PREVIEW_FOLDER
        self._last_image_id = sys.maxsize if wanted is None else wanted
        self._names = {category.id: category.name for category in categories}

    def is_wanted(self, record: ImageRecord) -> bool:
        """Whether an image is among the first."""
        return record.image_id <= self._last_image_id

    def write(self, rgb: np.ndarray, result: ImageResult) -> None:
        """Draw one image, if it is among the first.

        Args:
            rgb: (H, W, 3) uint8, original frame.
            result: its objects.
        """
        if not self.is_wanted(result.record):
            return
        path = self._folder / _preview_name(result.record.file_name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(path.parent, error) from error
        write_preview(rgb, result, self._names, path)


def _preview_name(file_name: str) -> str:
    """The preview of an image: its whole name, so that a.jpg and a.png both have one.

    A name that file systems would not take with a suffix behind it ends in its checksum instead.
    """
    folder, _, name = file_name.rpartition("/")
    if len(raw := os.fsencode(name)) > MAX_NAME_BYTES:
        head = os.fsdecode(raw[: MAX_NAME_BYTES // 2])
        name = f"{head}-{hashlib.sha256(raw).hexdigest()[:16]}"
    return f"{folder}/{name}.jpg" if folder else f"{name}.jpg"


def write_run_files(
    plan: RunPlan,
    facts: RunFacts,
    results: Iterable[ImageResult],
    *,
    seconds: float,
    num_labelled_now: int,
) -> RunSummary:
    """Stream the results into annotations.json and errors.jsonl; then run.json and the report.

    Raises:
        OutputError: a file cannot be written; files of an earlier run stay as they were.
    """
    out, options = plan.out, build_coco_options(plan, facts)
    report = _start_report(plan, facts)
    num_images = num_failed = num_notices = 0
    with (
        CocoWriter(out / ANNOTATIONS_FILE, categories=facts.categories, options=options) as coco,
        write_whole_file(out / ERRORS_FILE) as errors,
    ):
        for result in results:
            coco.write(result)
            report.add(result)
            rows = build_error_rows(result)
            num_images += 1
            num_failed += result.status == "failed"
            num_notices += len(result.warnings)
            errors.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    summary = RunSummary(
        out=out,
        num_images=num_images,
        num_failed=num_failed,
        num_labelled_now=num_labelled_now,
        num_notices=num_notices,
        coco=coco.summary,
        seconds=seconds,
    )
    record = _write_run_record(plan, facts, summary)
    _write_report(plan, report, record)
    return summary


def _start_report(plan: RunPlan, facts: RunFacts) -> ReportWriter:
    return ReportWriter(
        names={category.id: category.name for category in facts.categories},
        num_images=len(plan.records),
        apply_exif=plan.request.options.exif == "apply",
    )


def _write_report(plan: RunPlan, report: ReportWriter, record: dict[str, JsonValue]) -> None:
    path = plan.out / REPORT_FILE
    if plan.request.options.report:
        report.write(path, record)
        return
    with suppress(OSError):  # an earlier one would tell of other results
        path.unlink()


def write_failures(plan: RunPlan, failed: Iterable[ImageResult]) -> None:
    """Write errors.jsonl of a run that ends before its end: failed images only.

    Raises:
        OutputError: the file cannot be written.
    """
    with write_whole_file(plan.out / ERRORS_FILE) as errors:
        for result in failed:
            errors.writelines(json.dumps(row).encode() + b"\n" for row in build_error_rows(result))


def build_error_rows(result: ImageResult) -> list[dict[str, JsonValue]]:
    """Rows of errors.jsonl for an image: its failure, or its notices."""
    name = result.record.file_name
    if result.status == "failed":
        row: dict[str, JsonValue] = {"file_name": name, "level": "error"}
        return [row | {"reason": result.reason, "message": result.message}]
    return [
        {"file_name": name, "level": "warning", "reason": "notice", "message": text}
        for text in result.warnings
    ]


def _write_run_record(plan: RunPlan, facts: RunFacts, summary: RunSummary) -> dict[str, JsonValue]:
    request = plan.request
    record: dict[str, JsonValue] = {
        "version": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights": facts.weights,
        "vocabulary": {
            "name": plan.vocabulary.name,
            "sha256": plan.vocabulary.sha256(),
            "num_categories": len(plan.vocabulary),
        },
        "prompts": {"source": request.prompts, "sha256": plan.prompts.sha256}
        if plan.prompts
        else None,
        "shard": None if request.shard is None else asdict(request.shard),
        "unmatched_prompts": list(plan.unmatched),
        "options": facts.options,
        "command": request.command,
        "device": facts.device,
        "dtype": facts.dtype,
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "numpy": np.__version__,
        },
        "images": {
            "total": summary.num_images,
            "failed": summary.num_failed,
            "labelled_in_this_start": summary.num_labelled_now,
            "seconds_in_this_start": round(summary.seconds, 3),
        },
        "coco": asdict(summary.coco),
    }
    with write_whole_file(summary.out / RUN_FILE) as file:
        file.write(json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    return record
