"""A figure whose check failed is none."""

from __future__ import annotations

import pytest

from ovsam_cli.benchmarking.comparison import Comparison, Parity
from ovsam_cli.benchmarking.measurement import Measurement, Skipped, is_target_met

HOLDS, FAILS = Parity("torch loaded", 0, 0), Parity("torch loaded", 1, 0)


def measure(*checks: Parity, target: float | None = None, higher: bool = False) -> Measurement:
    return Measurement(
        "S1", "help", "s", (0.1, 0.3, 0.2), checks, target=target, higher_is_better=higher
    )


def test_the_value_is_the_median() -> None:
    assert measure().value == measure(HOLDS).value == 0.2


def test_a_failed_check_leaves_no_value() -> None:
    assert not measure(HOLDS, FAILS).is_valid
    with pytest.raises(ValueError, match="a check failed"):
        _ = measure(FAILS).value


def test_nothing_measured_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no value"):
        Measurement("", "help", "s", ())


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (measure(target=0.2), True),
        (measure(target=0.19), False),
        (measure(target=0.2, higher=True), True),
        (measure(target=0.21, higher=True), False),
        (measure(), None),
        (measure(FAILS, target=1.0), None),
        (Skipped("C9", "jpeg", "no OpenCV"), None),
        (Comparison("C8", "grid", "core", (4.0,), (2.0,), (HOLDS,), target=2.0), True),
        (Comparison("C8", "grid", "core", (4.0,), (2.0,), (HOLDS,), target=2.1), False),
        (Comparison("C8", "grid", "core", (4.0,), (2.0,), (FAILS,), target=2.0), None),
    ],
)
def test_targets(row: Measurement | Comparison | Skipped, met: bool | None) -> None:
    assert is_target_met(row) is met
