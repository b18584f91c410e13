"""A labelling job for processes to do, and what to look at in its output folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starting import Ended, Process, Starter

NUM_IMAGES = 24
# Slows the network down to what a stop in its middle can be aimed at.
SLOWED = """
import time
from ovsam_cli.model.ovsam import OVSAM
encode = OVSAM.encode_images
def slowly(self, pixels, input_hw):
    time.sleep({seconds})
    return encode(self, pixels, input_hw)
OVSAM.encode_images = slowly
"""


def slowed(seconds: float) -> str:
    """Setup of a process whose image tower takes that much longer a batch."""
    return SLOWED.format(seconds=seconds)


@dataclass(frozen=True)
class Case:
    """A labelling job, and processes for it."""

    starter: Starter
    folder: Path
    checkpoint: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def args(self, out: Path, *more: str | Path) -> list[str | Path]:
        return [
            *("label", self.photos, "--prompts", self.folder / "prompts.json"),
            *("--vocab", "cat, dog, zebra", "--model", self.checkpoint, "--devices", "cpu"),
            *("--out", out, *more),
        ]

    def start(self, out: Path, *more: str | Path, setup: str = "") -> Process:
        return self.starter.start(self.args(out, *more), setup=setup)

    def run(self, out: Path, *more: str | Path, setup: str = "", timeout: float = 60.0) -> Ended:
        return self.start(out, *more, setup=setup).wait(timeout)


def wait_for(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    """Look again and again until something has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def count_rows(out: Path) -> int:
    """Whole lines in a run's journal."""
    return sum(part.read_bytes().count(b"\n") for part in out.glob(".ovsam/part-*.jsonl"))


# Setup of a process that permissions bind even as root: it gives up the right to pass them.
# (CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; capabilities(7). Others have none to give up.)
BOUND_BY_PERMISSIONS = """
import ctypes, struct
libc = ctypes.CDLL(None)
header = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0), 8)
data = ctypes.create_string_buffer(24)
assert libc.capget(header, data) == 0
words = list(struct.unpack("6I", data.raw))
words[:2] = [word & ~0b110 for word in words[:2]]
assert libc.capset(header, ctypes.create_string_buffer(struct.pack("6I", *words), 24)) == 0
"""
