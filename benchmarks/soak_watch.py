"""One run of `ovsam label` under kills, started again until it ends; memory and files noted."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE_BYTES = resource.getpagesize()
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at a run.

    Attributes:
        seconds: since the phase began.
        num_rows: in the journal.
        largest_rss_mb, most_files: of its processes, the one with most.
        num_processes: parent and workers.
    """

    seconds: float
    num_rows: int
    largest_rss_mb: float
    most_files: int
    num_processes: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal that was sent: when, which, and whether to a worker."""

    seconds: float
    signal: int
    to_worker: bool


@dataclass(slots=True)
class Phase:
    """A run from its first start to its end.

    Attributes:
        name: for the plot.
        args: of `ovsam`.
        out: its output folder.
        kills: that were sent.
        samples: looks at its processes.
        exit_codes: of each start.
        seconds, cpu_seconds: all in all.
    """

    name: str
    args: Sequence[str]
    out: Path
    kills: list[Kill] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def run_phase(
    phase: Phase,
    rng: random.Random,
    *,
    num_kills: int,
    rows_between_kills: int,
    only_workers: bool,
) -> None:
    """Run it to its end.

    Args:
        phase: gets what was seen.
        rng: chooses moments, signals and victims.
        num_kills: signals to send at most.
        rows_between_kills: images that are finished between two signals, about.
        only_workers: SIGKILL to workers; else SIGKILL, SIGTERM or SIGINT to the run itself.
    """
    started, cpu_before = time.monotonic(), _children_cpu()
    counter = _RowCounter(phase.out)
    next_kill = rng.uniform(0.2, 1.8) * rows_between_kills
    while not phase.exit_codes or phase.exit_codes[-1] not in (0, 3):
        process = subprocess.Popen(phase.args, stdout=subprocess.DEVNULL)
        is_leaving = False
        while process.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            pids = _family(process.pid)
            now, rows = time.monotonic() - started, counter.count()
            phase.samples.append(_look(now, rows, pids))
            victims = [pid for pid in pids if (pid != process.pid) == only_workers]
            victims = [] if is_leaving else victims
            if victims and len(phase.kills) < num_kills and rows >= next_kill:
                number = signal.SIGKILL if only_workers else rng.choice(_SIGNALS)
                os.kill(rng.choice(victims), number)
                phase.kills.append(Kill(now, int(number), only_workers))
                next_kill = rows + rng.uniform(0.2, 1.8) * rows_between_kills
                is_leaving = not only_workers
        phase.exit_codes.append(process.returncode)
        if process.returncode in (1, 2, 4):
            raise RuntimeError(f"{phase.name}: exit code {process.returncode}")
    phase.seconds = time.monotonic() - started
    phase.cpu_seconds = _children_cpu() - cpu_before


# Killed most often; the other two stop in good order.
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class _RowCounter:
    """Counts the lines of a run's journal, reading only what is new."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._ends: dict[Path, int] = {}
        self._num_rows = 0

    def count(self) -> int:
        for part in self._out.glob(".ovsam/part-*.jsonl"):
            with open(part, "rb") as file:
                file.seek(self._ends.get(part, 0))
                new = file.read()
            self._num_rows += new.count(b"\n")
            self._ends[part] = self._ends.get(part, 0) + len(new)
        return self._num_rows


def _family(pid: int) -> list[int]:
    """A process, and the workers that it started."""
    found = [pid]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_worker = b"spawn_main" in (folder / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and is_worker:
            found.append(int(folder.name))
    return found


def _look(seconds: float, num_rows: int, pids: Sequence[int]) -> Sample:
    sizes, files = [0.0], [0]
    for pid in pids:
        try:
            sizes.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6)
            files.append(len(os.listdir(f"/proc/{pid}/fd")))
        except (OSError, IndexError):
            continue  # it has just ended
    return Sample(round(seconds, 2), num_rows, round(max(sizes), 1), max(files), len(pids))


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
