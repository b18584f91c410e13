"""A figure without a baseline: a time, a share, a peak; its checks may void it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ovsam_cli.benchmarking.comparison import Comparison, Parity


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of our own.

    Attributes:
        key: of the design's table of targets, such as "S1"; "" for none.
        name: what was measured, with its size.
        unit: of the values, such as "s", "images/s", "x".
        values: one a round, or a single one for a peak or a count.
        checks: what must hold for the figure to count; none is fine.
        target: what was aimed at, or None.
        higher_is_better: how the target is meant.
        note: what a reader must know of this row.
    """

    key: str
    name: str
    unit: str
    values: tuple[float, ...]
    checks: tuple[Parity, ...] = ()
    target: float | None = None
    higher_is_better: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name}: no value was measured")

    @property
    def is_valid(self) -> bool:
        """Whether all checks hold."""
        return all(one.is_passed for one in self.checks)

    @property
    def value(self) -> float:
        """Median of the values.

        Raises:
            ValueError: a check failed, so the figure would mean nothing.
        """
        if not self.is_valid:
            raise ValueError(f"{self.name}: a check failed, there is no figure")
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that could not be measured here, and why."""

    key: str
    name: str
    reason: str


Row = Comparison | Measurement | Skipped


def is_target_met(row: Row) -> bool | None:
    """Whether a valid row reaches its target; None where there is none, or no figure."""
    if isinstance(row, Skipped) or row.target is None or not row.is_valid:
        return None
    if isinstance(row, Comparison):
        return row.ratio >= row.target
    return row.value >= row.target if row.higher_is_better else row.value <= row.target
