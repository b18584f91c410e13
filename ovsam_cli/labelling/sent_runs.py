"""Runs behind URLs: what they send of their journal, and how it is fetched to be read again.

    URL/_state/manifest.json, ...                         of a run
    URL/shard-00000-of-00008/_state/manifest.json, ...    of its shards

The underscore is for stores' own tools, many of which pass over names with a dot.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ovsam_cli.labelling.journal_index import MANIFEST_FILE
from ovsam_cli.labelling.journal_part import list_parts
from ovsam_cli.labelling.run_description import DESCRIPTION_FILE, IMAGES_FILE
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.outputs.folders import Folder, open_folder
from ovsam_cli.remote import is_url

SENT_STATE = "_state"


def iter_state_names(out: Path) -> Iterator[tuple[str, Path]]:
    """Names for a store, and the files of a run's state that others need to read its results."""
    state = out / STATE_FOLDER
    for path in (*list_parts(state), *(state / name for name in (IMAGES_FILE, DESCRIPTION_FILE))):
        yield f"{SENT_STATE}/{path.name}", path
    yield f"{SENT_STATE}/{MANIFEST_FILE}", state / MANIFEST_FILE


@contextmanager
def fetch_runs(sources: Sequence[str]) -> Iterator[list[str]]:
    """Have runs and shards behind URLs on this machine, until the block ends.

    Args:
        sources: of an export. Paths, and URLs with something else behind them, stay as they are.

    Raises:
        InputError: a store cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="ovsam-runs-") as scratch:
        yield [
            _fetch(source, Path(scratch) / str(number)) if is_url(source) else source
            for number, source in enumerate(sources)
        ]


def _fetch(url: str, place: Path) -> str:
    """Copy the state of a run, or of the shards in a folder; where it is then, or `url`."""
    folder = open_folder(url)
    states = [name for name in folder.list_names() if SENT_STATE in name.split("/")[-2:-1]]
    for name in states:
        run, _, file_name = name.rpartition(f"{SENT_STATE}/")
        _copy(folder, name, place / run / STATE_FOLDER / file_name)
    return str(place) if states else url


def _copy(folder: Folder, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder.open(name) as there, path.open("wb") as here:
        shutil.copyfileobj(there, here)
