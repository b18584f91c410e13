"""`metrics.json`: every number of an evaluation, and all that it depends on; no torch."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ovsam_cli import __version__
from ovsam_cli.evaluation.calibration import Calibration
from ovsam_cli.evaluation.detection_files import TruthFile
from ovsam_cli.evaluation.detections import DetectionReport
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue

METRICS_FILE = "metrics.json"
FORMAT = "ovsam-eval-1"
PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "faster-coco-eval")


def write_metrics(out: Path, content: Mapping[str, JsonValue]) -> Path:
    """Write the file; its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = out / METRICS_FILE
    text = json.dumps(plain_fields(content), indent=1, allow_nan=False) + "\n"
    with write_whole_file(path) as file:
        file.write(text.encode())
    return path


def plain_fields(content: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The same with None for what JSON has no number for, as in the file."""
    return {key: _plain(one) for key, one in content.items()}


def describe_detections(report: DetectionReport) -> dict[str, JsonValue]:
    """Everything of an evaluation of detections."""
    return {
        "format": FORMAT,
        "command": "detections",
        "protocol": {
            "style": report.style,
            "max_detections": [*report.limits],
            "split": report.split_name,
        },
        "data": describe_truth(report.truth),
        "detections": describe_found(report),
        "versions": list_versions(),
        "figures": describe_precision(report),
    }


def describe_truth(truth: TruthFile) -> dict[str, JsonValue]:
    """Which ground truth, as far as it was used."""
    return {
        "name": truth.path.name,
        "sha256": truth.sha256,
        "num_images": len(truth.truth.images),
        "num_instances": len(truth.truth.objects),
    }


def describe_found(report: DetectionReport) -> dict[str, JsonValue]:
    """Which detections, and how many did not count."""
    found = report.found
    return {
        "name": found.path.name,
        "sha256": found.sha256,
        "num_objects": len(found.objects),
        "left_out": {**found.left_out},
        "beyond_limit": report.num_cut,
    }


def describe_precision(report: DetectionReport) -> dict[str, JsonValue]:
    """All figures of boxes and masks."""
    return {
        part.kind: {
            "all": {**part.figures},
            "by_category": {**part.by_category},
            "precision_by_recall": {name: [*one] for name, one in part.curves.items()},
        }
        for part in report.parts
    }


def describe_calibration(found: Calibration | None) -> JsonValue:
    """Bins of scores, and the expected calibration error."""
    if found is None:
        return None
    columns: Sequence[Sequence[float]] = (
        found.counts.tolist(),
        found.mean_scores.tolist(),
        found.shares_right.tolist(),
    )
    return {
        "expected_error": found.error,
        "bins": [
            {"objects": count, "mean_score": score, "share_right": share}
            for count, score, share in zip(*columns, strict=True)
        ],
    }


def list_versions() -> dict[str, str]:
    """Of Python, this program, and the packages that figures depend on."""
    found = {"python": platform.python_version(), "ovsam-cli": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: JsonValue) -> JsonValue:
    """The same with None for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
