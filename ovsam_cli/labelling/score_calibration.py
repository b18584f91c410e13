"""The temperature of a model's scores, in a small file beside its weights; no torch.

    rn50x16.safetensors
    rn50x16.safetensors.calibration.json

`ovsam eval calibrate` writes the file, `ovsam label` divides class logits by what it says. Names
keep their order; only how sure they look changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue

SUFFIX = ".calibration.json"
FORMAT = "ovsam-calibration-1"


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """What divides class logits, for weights of one checksum.

    Attributes:
        weights_sha256: of the weights it was fitted for.
        temperatures: by fusion mode (`auto`, `head`, `clip`).
        about: what it was fitted on, for people.
    """

    weights_sha256: str
    temperatures: dict[str, float]
    about: dict[str, JsonValue]


def calibration_path(weights: Sequence[Path]) -> Path:
    """Where the calibration of a model stands: beside the first of its files."""
    return weights[0].with_name(weights[0].name + SUFFIX)


def read_calibration(weights: Sequence[Path], weights_sha256: str) -> ScoreCalibration | None:
    """The calibration of a model; None where there is none for exactly these weights.

    Raises:
        InputError: the file is there but damaged.
    """
    path = calibration_path(weights)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _damaged(path, f"no format {FORMAT!r}")
    if content.get("weights_sha256") != weights_sha256:
        return None
    temperatures = content.get("temperatures")
    if not isinstance(temperatures, dict) or not all(map(_is_temperature, temperatures.values())):
        raise _damaged(path, f"temperatures {temperatures!r:.80} are not positive numbers")
    return ScoreCalibration(weights_sha256, temperatures, content.get("about") or {})


def write_calibration(weights: Sequence[Path], found: ScoreCalibration) -> Path:
    """Write the file beside the weights; its path. Other fusion modes' temperatures stay.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = calibration_path(weights)
    before = read_calibration(weights, found.weights_sha256) if path.exists() else None
    temperatures = (before.temperatures if before else {}) | found.temperatures
    content = {
        "format": FORMAT,
        "weights_sha256": found.weights_sha256,
        "temperatures": temperatures,
        "about": (before.about if before else {}) | found.about,
    }
    with write_whole_file(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
    return path


def _is_temperature(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[operator, arg-type]


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: is not a readable calibration ({what}); delete it, or make it again with "
        "`ovsam eval calibrate`"
    )
