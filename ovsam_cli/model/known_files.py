"""Weight files whose content is known beforehand: a flipped bit in a tensor is no error to readers.

Neither safetensors nor torch's zip reader checks what it reads against anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ovsam_cli.errors import CheckpointError, OutputError
from ovsam_cli.model.known_models import KNOWN_SHA256
from ovsam_cli.model.unpickling import compute_sha256

_SHA256 = re.compile("[0-9a-f]{64}")


def check_known_files(paths: Sequence[Path]) -> dict[Path, str]:
    """Compare the files whose SHA-256 is known with it.

    Known are files with a `NAME.sha256` beside them (as `sha256sum` writes it and
    `ovsam models convert` leaves it), those of a published name, and those in the hub's cache,
    which are named by it.

    Returns:
        The checksums that were computed; files of unknown content are not read.

    Raises:
        CheckpointError: a file is not what it should be, or cannot be read.
    """
    found: dict[Path, str] = {}
    for path in paths:
        expected, source = _find_expected(path)
        if not expected:
            continue
        found[path] = compute_sha256(path)
        if found[path] != expected:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes): its sha256 is {found[path]}, expected "
                f"{expected} ({source}); the file is damaged or another one: download or make it "
                "again, or give a file of your own another name"
            )
    return found


def checksum_path(path: Path) -> Path:
    """Where the checksum of a file stands."""
    return path.with_name(f"{path.name}.sha256")


def write_checksum(path: Path) -> None:
    """Leave a file's checksum beside it, for `sha256sum -c` and for `check_known_files`.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        checksum_path(path).write_text(f"{compute_sha256(path)}  {path.name}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{checksum_path(path)}: cannot be written ({error})") from error


def _find_expected(path: Path) -> tuple[str, str]:
    """What a file's checksum should be, and who says so; empty where nobody does."""
    beside = checksum_path(path)
    if beside.is_file():
        words = beside.read_text(encoding="utf-8", errors="replace").split()
        if words and _SHA256.fullmatch(words[0].lower()):
            return words[0].lower(), f"by {beside.name} beside it"
    if path.name in KNOWN_SHA256:
        return KNOWN_SHA256[path.name], "as published"
    blob = path.resolve().name
    if path.is_symlink() and _SHA256.fullmatch(blob):
        return blob, "as the hub has it"
    return "", ""
