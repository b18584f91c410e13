"""Result files of a run whose `--out` is a URL: sent there when they are complete.

The run itself works in a folder of this machine (`--state`), for its journal needs what stores have
not: appending, syncing to disk, and a lock. `run.json` goes last and so says that all is there. The
rows go too, so that `ovsam export` reads the URL as it reads a folder, and joins shards.

    STATE/.ovsam/sent.json      what was sent where, so that only what changed is sent again
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.run_files import (
    ANNOTATIONS_FILE,
    ERRORS_FILE,
    PREVIEW_FOLDER,
    REPORT_FILE,
    RUN_FILE,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.sent_runs import SENT_STATE, iter_state_names
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.outputs.folders import Folder, open_folder

SENT_FILE = "sent.json"
PROBE_FILE = "ovsam-write-test"


def check_target(url: str, *, overwrite: bool) -> None:
    """Find out early whether results can be sent to a URL.

    Raises:
        InputError: it cannot be read, or holds something that is not a run of ours.
        OutputError: it cannot be written.
    """
    folder = open_folder(url)
    names = folder.list_names()
    if names and RUN_FILE not in names and not overwrite:
        raise InputError(
            f"{url}: is not empty and holds no run of ovsam (found {names[0]!r}); choose another "
            "--out, or write into this one with --overwrite"
        )
    folder.write(PROBE_FILE, b"")
    folder.remove(PROBE_FILE)


def send_results(out: Path, url: str) -> int:
    """Send the result files of a finished run that are not there yet; how many were sent.

    Args:
        out: the run's folder on this machine.
        url: of the folder to fill.

    Raises:
        OutputError: a file cannot be written.
    """
    folder = open_folder(url)
    sent = _read_sent(out, url, folder)
    num_sent = 0
    files = dict(_iter_files(out))
    for name in folder.list_names():
        if name.startswith(f"{SENT_STATE}/") and name not in files:  # of a run before --restart
            folder.remove(name)
    for name, path in files.items():
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sent.get(name) == digest:
            continue
        folder.upload(name, path)
        sent[name] = digest
        num_sent += 1
    if num_sent:
        with write_whole_file(out / STATE_FOLDER / SENT_FILE) as note:
            note.write(json.dumps({"url": url, "files": sent}).encode() + b"\n")
    return num_sent


def _iter_files(out: Path) -> Iterator[tuple[str, Path]]:
    """Names and files; what speaks for all others last."""
    yield from iter_state_names(out)
    for name in _iter_names(out):
        yield name, out / name


def _iter_names(out: Path) -> Iterator[str]:
    for path in sorted((out / PREVIEW_FOLDER).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path.relative_to(out).as_posix()
    if (out / REPORT_FILE).is_file():
        yield REPORT_FILE
    yield from (ERRORS_FILE, ANNOTATIONS_FILE, RUN_FILE)


def _read_sent(out: Path, url: str, folder: Folder) -> dict[str, str]:
    """Checksums by name, of what was sent to this URL and is there still."""
    try:
        content = json.loads((out / STATE_FOLDER / SENT_FILE).read_bytes())
        if content["url"] != url:
            return {}
        sent: dict[str, str] = content["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    there = set(folder.list_names())
    return {name: digest for name, digest in sent.items() if name in there}
