"""A ratio needs its proof of equality."""

from __future__ import annotations

import math

import pytest

from ovsam_cli.benchmarking.comparison import Comparison, Parity, describe_ratio, time_in_turns

EQUAL = Parity("pixels that differ", 0, 0)


def compare(*parity: Parity) -> Comparison:
    return Comparison("", "work", "core", (3.0, 8.0, 5.0), (1.0, 2.0, 1.0), parity)


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    assert compare(EQUAL).ratios == (3, 4, 5)
    assert compare(EQUAL).ratio == 4
    assert describe_ratio(compare(EQUAL)) == "4 (3-5)"


@pytest.mark.parametrize(
    "parity",
    [
        (),
        (EQUAL, Parity("largest difference", 2e-5, 1e-5)),
        (Parity("IoU", 0.99, 0.9999, higher_is_better=True),),
        (Parity("IoU", math.nan, 0.9999, higher_is_better=True),),
        (Parity("largest difference", math.nan, 1),),
    ],
)
def test_no_ratio_without_proof(parity: tuple[Parity, ...]) -> None:
    with pytest.raises(ValueError, match="do not agree"):
        _ = compare(*parity).ratio
    assert "not" in describe_ratio(compare(*parity))


def test_both_run_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    baseline, ours = time_in_turns(
        lambda: calls.append("A"), lambda: calls.append("B"), rounds=5, clock="wall"
    )
    assert "".join(calls) == "AB" * 6
    assert len(baseline) == len(ours) == 5


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        time_in_turns(lambda: None, lambda: None, rounds=0)
