"""Results of runs and shards, read back in the order of their image ids; no torch.

What every export is made from:

    content = open_runs([Path("run/")])      # or the folder of all shards, or some of them
    content.categories, content.coco         # what ids mean; form and notices of the COCO file
    for result in content.iter_results():    # ImageResult by ImageResult, failed ones included
        ...

A folder that holds `shard-00000-of-00003/` and so on stands for these. Shards must be all of one
run: equal settings, each there once, all finished; `partial` takes what is there. Rows are read one
at a time; in memory are only their places.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.fingerprint import THREADS, compare_settings, read_settings
from ovsam_cli.labelling.journal_index import MANIFEST_FILE, RowIndex, read_run
from ovsam_cli.labelling.run_description import RunDescription, iter_images, read_description
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.shards import SHARD_PATTERN, Shard
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.structures import ImageRecord, ImageResult

NUM_LISTED = 8  # shards named one by one before the rest is counted
# Settings in which shards of one run may differ: which it is, and how many threads its machine had.
MAY_DIFFER = {"options.shard.index", THREADS}


@dataclass(frozen=True, slots=True)
class _Part:
    """A run or shard on disk, opened."""

    out: Path
    description: RunDescription
    index: RowIndex
    num_missing: int

    def iter_results(self) -> Iterator[ImageResult]:
        """By image_id; ids are those of the present list, whatever older rows say."""
        images = iter_images(self.out)
        records = (ImageRecord(Path(name), name, image_id) for image_id, name in images)
        for record, result in self.index.iter_pairs(records):
            yield replace(result, record=replace(result.record, image_id=record.image_id))


@dataclass(frozen=True, slots=True)
class RunContent:
    """Results of a run, whole or joined from shards.

    Attributes:
        categories: that the results' category ids stand for.
        coco: form and notices of its COCO file.
        num_images: that have a result, failed ones included.
        num_missing: images of the run that have none; above 0 only for partial content.
        missing_shards: those that are not there at all; only for partial content.
        parts: what is read.
    """

    categories: tuple[CocoCategory, ...]
    coco: CocoOptions
    num_images: int
    num_missing: int
    missing_shards: tuple[Shard, ...]
    parts: tuple[_Part, ...]

    def iter_results(self) -> Iterator[ImageResult]:
        """Each image's result, by image_id.

        Raises:
            InputError: a file is damaged or changes meanwhile.
        """
        streams = [part.iter_results() for part in self.parts]
        return heapq.merge(*streams, key=lambda result: result.record.image_id)

    def iter_images(self) -> Iterator[ImageRecord]:
        """The images that have a result, where they were when they were labelled."""
        return (result.record for result in self.iter_results())


def open_runs(paths: Sequence[Path], *, partial: bool = False) -> RunContent:
    """Open one run, or shards of one run.

    Args:
        paths: output folders of runs or shards, or folders of shards.
        partial: also take runs that are not finished, and leave out shards that are missing.

    Raises:
        InputError: no run, several runs, other settings, shards missing, twice or unfinished;
            names which.
    """
    folders = [folder for path in paths for folder in _expand(path)]
    found: dict[Path, Path] = {}
    for folder in folders:
        if (before := found.setdefault(folder.resolve(), folder)) is not folder:
            raise InputError(f"{folder}: is given twice (also as {before}); give it once")
    descriptions = [read_description(folder) for folder in folders]
    _check_settings(folders)
    missing_shards = _check_shards(folders, descriptions, partial=partial)
    parts = [_open_part(*pair) for pair in zip(folders, descriptions, strict=True)]
    unfinished = [part for part in parts if part.num_missing]
    if unfinished and not partial:
        raise InputError(
            f"not finished: {_list_some(map(_describe_unfinished, unfinished))}; finish by running "
            "the same commands again, or take what is there with --partial"
        )
    first = descriptions[0]
    return RunContent(
        categories=first.categories,
        coco=first.coco,
        num_images=sum(part.description.num_images - part.num_missing for part in parts),
        num_missing=sum(part.num_missing for part in parts),
        missing_shards=missing_shards,
        parts=tuple(parts),
    )


def _expand(path: Path) -> list[Path]:
    """A folder itself, or the shards in it."""
    if (path / STATE_FOLDER).is_dir() or not path.is_dir():
        return [path]
    return sorted(path.glob(SHARD_PATTERN)) or [path]


def _open_part(out: Path, description: RunDescription) -> _Part:
    index = read_run(out)
    finished = index.file_names()
    missing = sum(file_name not in finished for _, file_name in iter_images(out))
    return _Part(out, description, index, missing)


def _check_settings(folders: Sequence[Path]) -> None:
    """Refuse parts that were made with other settings than the first."""
    first = read_settings(folders[0] / STATE_FOLDER / MANIFEST_FILE)
    for folder in folders[1:]:
        settings = read_settings(folder / STATE_FOLDER / MANIFEST_FILE)
        differences = [
            f"{name}: {before} there, {after} here"
            for name, before, after in compare_settings(first, settings)
            if name not in MAY_DIFFER
        ]
        if differences:
            raise InputError(
                f"{folder}: has other settings than {folders[0]} ({'; '.join(differences)}); only "
                "shards of one run can be joined: the same images, model, names and options"
            )


def _check_shards(
    folders: Sequence[Path], descriptions: Sequence[RunDescription], *, partial: bool
) -> tuple[Shard, ...]:
    """Refuse several whole runs, and shards that are there twice or missing; the missing ones."""
    owners: dict[int, Path] = {}
    shard = None
    for folder, description in zip(folders, descriptions, strict=True):
        shard = description.shard
        if shard is None:
            if len(folders) > 1:
                raise InputError(
                    f"{folder}: is a whole run; export it by itself (only shards can be joined)"
                )
            return ()
        if shard.index in owners:
            raise InputError(f"shard {shard} is there twice: {owners[shard.index]} and {folder}")
        owners[shard.index] = folder
    assert shard is not None
    missing = tuple(Shard(i, shard.count) for i in range(shard.count) if i not in owners)
    if missing and not partial:
        raise InputError(
            f"{len(missing)} of {shard.count} shards missing: {_list_some(map(str, missing))}; "
            "give their folders too, label them with --shard, or leave them out with --partial"
        )
    return missing


def _describe_unfinished(part: _Part) -> str:
    total = part.description.num_images
    return f"{part.out} has {total - part.num_missing} of {total} images"


def _list_some(texts: Iterator[str]) -> str:
    listed = list(texts)
    rest = len(listed) - NUM_LISTED
    return ", ".join(listed[:NUM_LISTED]) + (f" and {rest} more" if rest > 0 else "")
