"""What a run leaves in its output folder, and the settings that make it that run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from ovsam_cli import __version__
from ovsam_cli.labelling.device import describe_device
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions, CocoSummary, CocoWriter
from ovsam_cli.outputs.files import output_error, write_whole_file
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.previews import write_preview
from ovsam_cli.structures import ImageRecord, ImageResult

ANNOTATIONS_FILE, ERRORS_FILE, RUN_FILE = "annotations.json", "errors.jsonl", "run.json"
PREVIEW_FOLDER = "previews"
MAX_NAME_BYTES = 240  # file systems take 255; the preview's suffixes come behind
# Options that change how fast results come, or which files show them, but not the objects found.
NOT_IN_FINGERPRINT = {"batch_size", "prompts_per_batch", "compile", "num_previews", "masks"}


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
    """

    out: Path
    num_images: int
    num_failed: int
    num_labelled_now: int
    num_notices: int
    coco: CocoSummary
    seconds: float


class PreviewWriter:
    """Writes overlays of the first images of a run, as many as were asked for."""

    def __init__(self, plan: RunPlan, labeller: Labeller) -> None:
        wanted = plan.request.options.num_previews
        self._folder = plan.request.out / PREVIEW_FOLDER
        self._last_image_id = len(plan.records) if wanted is None else wanted
        self._names = {category.id: category.name for category in build_categories(labeller)}

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


def build_categories(labeller: Labeller) -> list[CocoCategory]:
    """The vocabulary's categories, and the unknown one behind them."""
    categories = [
        CocoCategory(category.id, category.name, frequency=category.frequency)
        for category in labeller.vocabulary.categories
    ]
    unknown_id, unknown_name = labeller.unknown_category_id, labeller.options.unknown_name
    if unknown_id is not None and unknown_name is not None:
        categories.append(CocoCategory(unknown_id, unknown_name))
    return categories


def _resolved_options(labeller: Labeller) -> dict[str, JsonValue]:
    """The run's options, with defaults that depend on the mode or the model filled in."""
    return asdict(labeller.options) | {
        "min_stability": labeller.stability_cut,
        "min_predicted_iou": labeller.predicted_iou_cut,
    }


def build_fingerprint(plan: RunPlan, loaded: LoadedModel, labeller: Labeller) -> Fingerprint:
    """The settings that decide the results of a run."""
    options = {
        name: value
        for name, value in _resolved_options(labeller).items()
        if name not in NOT_IN_FINGERPRINT
    }
    # One setting a line, so that a refusal can show what differs.
    del options["grid"]
    if labeller.options.grid is not None:
        grid = asdict(labeller.options.grid)
        options |= {f"grid.{name}": value for name, value in grid.items()}
    if options["min_predicted_iou"] is None:
        # Runs without such a filter keep the settings they had before there was one.
        del options["min_predicted_iou"]
    options["dtype"] = str(labeller.dtype).removeprefix("torch.")
    options["text_embeddings"] = labeller.text_hash
    options["base_names"] = plan.base_vocabulary.sha256() if plan.base_vocabulary else None
    return Fingerprint(
        weights_sha256=loaded.weights_sha256,
        vocabulary_sha256=plan.vocabulary.sha256(),
        prompts_sha256=plan.prompts.sha256 if plan.prompts else "",
        tool_version=__version__,
        options=options,
    )


def write_run_files(
    plan: RunPlan,
    loaded: LoadedModel,
    labeller: Labeller,
    results: Iterable[ImageResult],
    *,
    seconds: float,
    num_labelled_now: int,
) -> RunSummary:
    """Stream the results into annotations.json and errors.jsonl, then write run.json.

    Raises:
        OutputError: a file cannot be written; files of an earlier run stay as they were.
    """
    out, options = plan.request.out, plan.request.options
    coco_options = CocoOptions(
        masks=options.masks,
        with_prompt=options.grid is None,
        with_topk=options.top_k > 0,
        version=__version__,
        description="Labelled with ovsam (Open-Vocabulary SAM)",
        weights_notice=f"{loaded.name}: {loaded.license_notice}",
    )
    num_failed = num_notices = 0
    with (
        CocoWriter(
            out / ANNOTATIONS_FILE, categories=build_categories(labeller), options=coco_options
        ) as coco,
        write_whole_file(out / ERRORS_FILE) as errors,
    ):
        for result in results:
            coco.write(result)
            rows = _error_rows(result)
            num_failed += result.status == "failed"
            num_notices += len(result.warnings)
            errors.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    summary = RunSummary(
        out=out,
        num_images=len(plan.records),
        num_failed=num_failed,
        num_labelled_now=num_labelled_now,
        num_notices=num_notices,
        coco=coco.summary,
        seconds=seconds,
    )
    _write_run_record(plan, loaded, labeller, summary)
    return summary


def write_failures(plan: RunPlan, failed: Iterable[ImageResult]) -> None:
    """Write errors.jsonl of a run that ends before its end: failed images only.

    Raises:
        OutputError: the file cannot be written.
    """
    with write_whole_file(plan.request.out / ERRORS_FILE) as errors:
        for result in failed:
            errors.writelines(json.dumps(row).encode() + b"\n" for row in _error_rows(result))


def _error_rows(result: ImageResult) -> list[dict[str, JsonValue]]:
    name = result.record.file_name
    if result.status == "failed":
        row: dict[str, JsonValue] = {"file_name": name, "level": "error"}
        return [row | {"reason": result.reason, "message": result.message}]
    return [
        {"file_name": name, "level": "warning", "reason": "notice", "message": text}
        for text in result.warnings
    ]


def _write_run_record(
    plan: RunPlan, loaded: LoadedModel, labeller: Labeller, summary: RunSummary
) -> None:
    request = plan.request
    record = {
        "version": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights": {
            "name": loaded.name,
            "sha256": loaded.weights_sha256,
            "sources": [str(path) for path in loaded.paths],
            "notice": loaded.license_notice,
            "predicts_iou": loaded.config.iou_head,
        },
        "vocabulary": {
            "name": plan.vocabulary.name,
            "sha256": plan.vocabulary.sha256(),
            "num_categories": len(plan.vocabulary),
        },
        "prompts": {"source": request.prompts, "sha256": plan.prompts.sha256}
        if plan.prompts
        else None,
        "unmatched_prompts": list(plan.unmatched),
        "options": _resolved_options(labeller),
        "device": describe_device(labeller.device),
        "dtype": str(labeller.dtype).removeprefix("torch."),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
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
