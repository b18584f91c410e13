"""Parts of a run for several machines: which batches belong to which, and where each part writes.

    OUT/shard-00003-of-00008/   a whole output folder of its own: lock, journal, result files

So the same command line can run on every machine against shared storage. Batches are cut from all
images of the run and dealt out in turn, and image ids come from the whole list: each shard computes
the very numbers that the undivided run would, and `ovsam export coco OUT` joins them to its file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.run_folder import STATE_FOLDER

SHARD_PATTERN = "shard-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]"
MAX_SHARDS = 99_999
# Number of this part and count of all: of torchrun (and MPI launchers like it), of a Slurm job
# array, of the tasks of one Slurm job. An array's count stands for all numbers only if they begin
# at MIN and have no gaps, which is checked by MAX.
RANK = ("RANK", "WORLD_SIZE")
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
ARRAY_RANGE = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
TASKS = ("SLURM_PROCID", "SLURM_NTASKS")
NUMBERS_ONLY = ("RANK", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "JOB_COMPLETION_INDEX")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a run.

    Attributes:
        index: of this part, from 0.
        count: parts in all.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_SHARDS or not 0 <= self.index < self.count:
            raise InputError(
                f"--shard {self.index}/{self.count}: expected I/N with 0 <= I < N <= {MAX_SHARDS} "
                f"(parts are counted from 0, the last of {self.count} is {self.count - 1})"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder_name(self) -> str:
        """Of its output folder, within that of the whole run."""
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def take(self, items: Iterable[Item]) -> Iterator[Item]:
        """Every N-th item, from the I-th on."""
        return islice(items, self.index, None, self.count)


def parse_shard(text: str | None, environment: Mapping[str, str]) -> Shard | None:
    """Read `I/N`, `auto` or `auto/N`; None stays None, for the whole run.

    Args:
        text: of `--shard`.
        environment: variables that launchers set.

    Raises:
        InputError: none of these forms, out of range, or `auto` finds no variables.
    """
    if text is None:
        return None
    if text == "auto":
        return _find_shard(environment)
    found = re.fullmatch(r"(auto|\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None:
        raise InputError(f"--shard {text!r}: expected I/N (from 0/N on), auto, or auto/N")
    if found[1] == "auto":
        return Shard(_find_number(environment, int(found[2])), int(found[2]))
    return Shard(int(found[1]), int(found[2]))


def _find_shard(environment: Mapping[str, str]) -> Shard:
    for number, count in (RANK, ARRAY, TASKS):
        if number in environment and count in environment:
            first, last = 0, _int_of(environment, count) - 1
            if number == ARRAY[0] and all(name in environment for name in ARRAY_RANGE):
                first, last = (_int_of(environment, name) for name in ARRAY_RANGE)
                if last - first + 1 != _int_of(environment, count):
                    raise InputError(
                        f"--shard auto: the job array {first}-{last} has "
                        f"{environment[count]} tasks, so its numbers have gaps; number them "
                        "without, or give --shard I/N"
                    )
            return Shard(_int_of(environment, number) - first, last - first + 1)
    pairs = ", ".join(f"{number} with {count}" for number, count in (RANK, ARRAY, TASKS))
    hint = ""
    if "JOB_COMPLETION_INDEX" in environment:
        hint = "; JOB_COMPLETION_INDEX is set, but not how many there are: give --shard auto/N"
    raise InputError(
        f"--shard auto: none of these variables is set: {pairs}{hint or '; give --shard I/N'}"
    )


def _find_number(environment: Mapping[str, str], count: int) -> int:
    for name in NUMBERS_ONLY:
        if name in environment:
            first = _int_of(environment, ARRAY_RANGE[0]) if ARRAY_RANGE[0] in environment else 0
            return _int_of(environment, name) - (first if name == ARRAY[0] else 0)
    raise InputError(
        f"--shard auto/{count}: none of these variables is set: {', '.join(NUMBERS_ONLY)}; "
        f"give --shard I/{count}"
    )


def _int_of(environment: Mapping[str, str], name: str) -> int:
    """A variable's number; InputError where it is none."""
    text = environment[name]
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise InputError(f"--shard: the variable {name} is {text!r}, expected a number")
    return int(text)


def check_shards_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse to put shards into a folder that is something else.

    Args:
        out: of the whole run; shards of other machines may be in it already.
        overwrite: other files may be in it too.

    Raises:
        InputError: a run that is not divided is in it, or files of something else.
    """
    if not out.is_dir():
        return
    if (out / STATE_FOLDER).is_dir():
        raise InputError(f"{out}: holds a run without --shard; choose another --out for shards")
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if names and not overwrite and not any(out.glob(SHARD_PATTERN)):
        raise InputError(
            f"{out}: is not empty and holds no shards of ovsam (found {names[0]!r}); choose an "
            "empty or new folder, or write into this one with --overwrite"
        )
