"""Two ways to the same result, timed in turns; the ratio counts only if the results agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Clock = Literal["core", "wall", "cuda"]
USUAL_ROUNDS = 5  # fewer say little of the spread


@dataclass(frozen=True, slots=True)
class Parity:
    """One figure that says how far the two results are apart.

    Attributes:
        name: what was compared, such as "pixels that differ".
        value: what was found.
        limit: the largest value (smallest where `higher_is_better`) that counts as equal.
        higher_is_better: for agreement and IoU.
    """

    name: str
    value: float
    limit: float
    higher_is_better: bool = False

    @property
    def is_passed(self) -> bool:
        """Whether the results agree; NaN never does."""
        return self.value >= self.limit if self.higher_is_better else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline and ours, timed in turns on the same data.

    Attributes:
        key: of the design's table of targets, such as "C7"; "" for none.
        name: what was timed, with its size.
        clock: core seconds of this process, wall seconds, or wall seconds until the GPU is done.
        baseline_seconds, our_seconds: one a round, for the same amount of work.
        parity: figures that must all pass; none means that nothing was shown.
        target: ratio that was aimed at, or None.
        note: what a reader must know of this row.
    """

    key: str
    name: str
    clock: Clock
    baseline_seconds: tuple[float, ...]
    our_seconds: tuple[float, ...]
    parity: tuple[Parity, ...]
    target: float | None = None
    note: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether there is proof of equality, and all of it holds."""
        return bool(self.parity) and all(one.is_passed for one in self.parity)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Baseline over ours in each round: how many times faster ours is.

        Raises:
            ValueError: the results do not agree, so a ratio would mean nothing.
        """
        if not self.is_valid:
            raise ValueError(f"{self.name}: the results do not agree, there is no ratio")
        pairs = zip(self.baseline_seconds, self.our_seconds, strict=True)
        return tuple(baseline / max(ours, 1e-12) for baseline, ours in pairs)

    @property
    def ratio(self) -> float:
        """Median of `ratios`; raises as they do."""
        return statistics.median(self.ratios)


def time_in_turns(
    baseline: Callable[[], object],
    ours: Callable[[], object],
    *,
    rounds: int = USUAL_ROUNDS,
    clock: Clock = "core",
    is_warm: bool = False,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Run A B A B ..., each once before that to warm up unless both ran already.

    Args:
        baseline, ours: the same work two ways.
        rounds: how often each runs.
        clock: `core` counts all threads of this process, so give both the same number.
        is_warm: both ran already, for their results were compared.

    Returns:
        Seconds of each round, baseline's and ours.

    Raises:
        ValueError: no round.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} rounds; at least one is needed")
    if not is_warm:
        baseline(), ours()
    pairs = [
        (measure_seconds(baseline, clock), measure_seconds(ours, clock)) for _ in range(rounds)
    ]
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def measure_seconds(work: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    return _CLOCKS[clock](work)


def _core_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _wall_seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cuda_seconds(work: Callable[[], object]) -> float:
    import torch

    # The device's own queue is empty on both sides, so the wall clock sees its work alone.
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


_CLOCKS: dict[Clock, Callable[[Callable[[], object]], float]] = {
    "core": _core_seconds,
    "wall": _wall_seconds,
    "cuda": _cuda_seconds,
}


def describe_ratio(comparison: Comparison) -> str:
    """`27.1 (25.0-29.3)`, or the figure that failed in its place."""
    if not comparison.is_valid:
        failed = [one for one in comparison.parity if not one.is_passed]
        why = ", ".join(f"{one.name} {one.value:g}, limit {one.limit:g}" for one in failed)
        return f"not equal: {why}" if why else "not shown to be equal"
    ratios: Sequence[float] = comparison.ratios
    return f"{comparison.ratio:.3g} ({min(ratios):.3g}-{max(ratios):.3g})"
