"""The settings that decide a run's results, and the manifest that keeps them beside its rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.json_values import JsonValue

MANIFEST_FORMAT = "ovsam-run-1"
THREADS = "options.threads"  # of a process on a CPU, among the settings
SHOWN_CHARACTERS = 40  # of a setting's value in a message; digests are told apart by less


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides a run's results, besides its images.

    Attributes:
        weights_sha256, vocabulary_sha256, prompts_sha256: hex digests; `prompts_sha256` is empty
            where prompts are made by the program (grid), whose options say how.
        tool_version: our own version.
        options: resolved options that change results, as plain JSON values.
    """

    weights_sha256: str
    vocabulary_sha256: str
    prompts_sha256: str
    tool_version: str
    options: dict[str, JsonValue]

    def settings(self) -> dict[str, JsonValue]:
        """All settings side by side, by the names that messages use."""
        settings: dict[str, JsonValue] = {
            "version": self.tool_version,
            "weights": self.weights_sha256,
            "vocabulary": self.vocabulary_sha256,
            "prompts": self.prompts_sha256,
        }
        for name, value in self.options.items():
            settings[f"options.{name}"] = value
        return settings


def write_manifest(path: Path, fingerprint: Fingerprint) -> None:
    """Write the manifest of a new run.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: an option is NaN or infinite.
    """
    manifest = {"format": MANIFEST_FORMAT, "settings": fingerprint.settings()}
    with write_whole_file(path) as file:
        file.write(json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode("ascii"))
        file.write(b"\n")


def check_manifest(path: Path, fingerprint: Fingerprint) -> None:
    """Refuse to continue a run with settings that would give other results.

    Raises:
        InputError: the manifest is damaged, or names other settings; the differences are listed.
    """
    differences = [
        f"{name}: was {before}, now {after}"
        for name, before, after in compare_settings(read_settings(path), fingerprint.settings())
    ]
    if differences:
        raise InputError(
            f"{path.parent.parent}: holds a run with other settings ({'; '.join(differences)}); "
            "repeat that run's settings to continue it, choose another --out, "
            "or drop its results with --restart"
        )


def read_settings(path: Path) -> dict[str, JsonValue]:
    """The settings in a manifest.

    Raises:
        InputError: the manifest is missing or damaged.
    """
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != MANIFEST_FORMAT:
            raise ValueError(f"format {manifest['format']!r}, expected {MANIFEST_FORMAT!r}")
        return dict(manifest["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not a readable manifest of a run ({error}); drop that run with --restart"
        ) from error


def compare_settings(
    first: dict[str, JsonValue], second: dict[str, JsonValue]
) -> list[tuple[str, str, str]]:
    """Settings that differ: their name, and both values as a message can show them."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        before = _value_text(first[name]) if name in first else "not set"
        after = _value_text(second[name]) if name in second else "not set"
        if before != after:
            found.append((name, _shortened(before), _shortened(after)))
    return found


def _value_text(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
