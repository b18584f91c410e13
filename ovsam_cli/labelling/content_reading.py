"""What `ovsam export` reads: runs and shards by their journals, or the Parquet parts of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.fingerprint import read_settings
from ovsam_cli.labelling.journal_index import MANIFEST_FILE
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.run_reading import RunContent, open_runs
from ovsam_cli.labelling.shards import SHARD_PATTERN
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.parquet_reading import ParquetRun, open_parts
from ovsam_cli.remote import parse_location

Content: TypeAlias = RunContent | ParquetRun


def open_content(sources: Sequence[str], *, partial: bool = False) -> Content:
    """Open runs, shards, or a folder of Parquet parts.

    Args:
        sources: output folders of runs or shards; or one path or URL with parts.
        partial: take what is there of what has not finished.

    Raises:
        InputError: neither, or not all of it is there.
    """
    locations = [parse_location(source) for source in sources]
    first = locations[0]
    if len(locations) == 1 and (isinstance(first, str) or any(first.glob("part-*.parquet"))):
        return open_parts(first, partial=partial)
    paths = [location for location in locations if isinstance(location, Path)]
    if len(paths) < len(locations):
        raise InputError("one URL with the parts of a run, or folders of this machine, not both")
    return open_runs(paths, partial=partial)


def read_content_settings(content: Content, source: str) -> Mapping[str, JsonValue]:
    """The settings of a run, or of the run that shards are of.

    Args:
        content: from `open_content`.
        source: the first of its sources.

    Raises:
        InputError: there are none.
    """
    if isinstance(content, ParquetRun):
        return content.settings
    folder = Path(source)
    if not (folder / STATE_FOLDER).is_dir():
        folder = next(iter(sorted(folder.glob(SHARD_PATTERN))), folder)
    settings = read_settings(folder / STATE_FOLDER / MANIFEST_FILE)
    return {n: v for n, v in settings.items() if not n.startswith("options.shard.")}
