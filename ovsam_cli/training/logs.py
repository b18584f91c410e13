"""What a run writes down: `log.jsonl`, `skipped.jsonl`, TensorBoard's files."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.batches import SkippedImage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_NAME, SKIPPED_NAME, BOARD_FOLDER = "log.jsonl", "skipped.jsonl", "tensorboard"
DIGITS = 6  # significant ones of a logged number

# `kind` is "train" or "validation"; all other values are numbers, `step` among them.
LogLine: TypeAlias = Mapping[str, "float | int | str"]


class WindowState(TypedDict):
    """A `Window` as plain values."""

    losses: dict[str, float]
    counts: dict[str, int]
    num_steps: int
    num_images: int
    num_nonfinite: int
    gradient_norm: float
    seconds: float


@dataclass(slots=True)
class Window:
    """What happened since the last line of the log; a part of every checkpoint.

    Attributes:
        losses: sums by name.
        counts: micro-batches that had the loss.
        num_steps: steps, skipped ones included.
        num_images: images of these steps.
        num_nonfinite: steps skipped because a loss or gradient was not finite.
        gradient_norm: sum over the steps that were not skipped.
        seconds: of these steps.
    """

    losses: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    num_steps: int = 0
    num_images: int = 0
    num_nonfinite: int = 0
    gradient_norm: float = 0.0
    seconds: float = 0.0

    def add_losses(self, losses: Mapping[str, float]) -> None:
        """Count one micro-batch."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def merge(self, others: Sequence[Window]) -> None:
        """Add what other processes did in the same steps."""
        for other in others:
            for name, value in other.losses.items():
                self.losses[name] = self.losses.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + other.counts[name]
            self.num_images += other.num_images

    def means(self) -> dict[str, float]:
        """Mean losses, their sum as `loss`, gradient norm, images a second."""
        losses = {name: total / self.counts[name] for name, total in self.losses.items()}
        values = {"loss": sum(losses.values()), **losses} if losses else {}
        num_updates = self.num_steps - self.num_nonfinite
        if num_updates:
            values["gradient_norm"] = self.gradient_norm / num_updates
        if self.num_nonfinite:
            values["nonfinite_steps"] = self.num_nonfinite
        if self.seconds > 0:
            values["images_per_second"] = self.num_images / self.seconds
        return values

    def to_state(self) -> WindowState:
        """Plain values for a checkpoint; `Window(**state)` is the inverse."""
        return WindowState(
            losses=dict(self.losses),
            counts=dict(self.counts),
            num_steps=self.num_steps,
            num_images=self.num_images,
            num_nonfinite=self.num_nonfinite,
            gradient_norm=self.gradient_norm,
            seconds=self.seconds,
        )


class RunLog:
    """The files of one run; lines of steps that a resumed run makes again are dropped first.

    Args:
        folder: of the run.
        step: of the checkpoint the run goes on from; 0: from the start.
        first_index: number of its first micro-batch.
        validated_step: of the last validation that counts; lines of later ones are dropped.
        on_log: called with each line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        first_index: int,
        validated_step: int,
        on_log: Callable[[LogLine], None] | None,
    ) -> None:
        self._log = folder / LOG_NAME
        self._skipped = folder / SKIPPED_NAME
        self._on_log = on_log
        _drop_lines(
            self._log,
            lambda row: (
                int(row["step"]) <= (validated_step if row["kind"] == "validation" else step)
            ),
        )
        _drop_lines(self._skipped, lambda row: int(row["index"]) < first_index)
        self._board = _open_board(folder / BOARD_FOLDER, step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line; numbers that are not finite are left out (JSON has none)."""
        finite = {
            name: float(f"{value:.{DIGITS}g}")
            for name, value in values.items()
            if math.isfinite(value)
        }
        line: LogLine = {"kind": kind, "step": step, **finite}
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in finite.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._on_log is not None:
            self._on_log(line)

    def write_skipped(self, skipped: Sequence[tuple[int, SkippedImage]]) -> None:
        """Append images that could not be read, each with its micro-batch's number."""
        if not skipped:
            return
        with self._skipped.open("a", encoding="utf-8") as file:
            for index, image in sorted(skipped, key=lambda one: one[0]):
                row = {"index": index, "path": str(image.path), "reason": image.reason}
                file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Let TensorBoard's file be written to its end."""
        if self._board is not None:
            self._board.close()


def _open_board(folder: Path, first_step: int) -> SummaryWriter | None:
    """TensorBoard's writer where the extra `train` is installed, which hides older lines."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer: SummaryWriter = SummaryWriter(str(folder), purge_step=first_step)
    return writer


def read_log(path: Path) -> list[dict[str, float | int | str]]:
    """The lines of a JSON-lines file; what a kill left torn at its end is dropped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _drop_lines(path: Path, is_kept: Callable[[LogLine], bool]) -> None:
    """Leave out the other lines, and a torn one."""
    if not path.exists():
        return
    kept = [row for row in read_log(path) if is_kept(row)]
    if len(kept) == path.read_bytes().count(b"\n"):
        return  # nothing to drop, nothing torn
    with write_whole_file(path) as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in kept)
