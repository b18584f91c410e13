"""Low-resolution logits to run lengths at several image sizes: NumPy (C7) and Numba (C6)."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec

from ovsam_cli.benchmarking.comparison import Comparison, Parity
from ovsam_cli.benchmarking.labelling_rows import describe
from ovsam_cli.benchmarking.mask_encoding import MaskForm, MaskKind, time_mask_encoding
from ovsam_cli.benchmarking.measurement import Measurement, Row, Skipped
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings

KINDS: tuple[MaskKind, ...] = ("wiggly", "smooth")
FORMS: tuple[tuple[MaskForm, str], ...] = (("numpy", "C7"), ("compiled", "C6"))
MEDIUM_HW = (1200, 1800)
# Of the geometric mean of wiggly and smooth masks, by image size.
TARGETS: dict[tuple[MaskForm, tuple[int, int]], float] = {
    ("numpy", (480, 640)): 8.0,
    ("numpy", (3000, 4000)): 10.0,
    ("compiled", (480, 640)): 30.0,
    ("compiled", (3000, 4000)): 150.0,
}


def compare_mask_encoding(settings: BenchSettings) -> list[Row]:
    """C6, C7: each form at each size, and the mean of both kinds of masks, which has the target."""
    sizes = settings.sizes
    resolutions = [sizes.vga_hw]
    if settings.suite == "full" and sizes != MINIMAL:
        resolutions += [MEDIUM_HW, sizes.large_hw]
    rows: list[Row] = []
    for form, key in FORMS:
        if form == "compiled" and find_spec("numba") is None:
            rows.append(Skipped(key, "logits to RLE, compiled", "Numba is not installed (fast)"))
            continue
        for original_hw in resolutions:
            rows += _compare_form(settings, form, key, original_hw)
    return rows


def _compare_form(
    settings: BenchSettings, form: MaskForm, key: str, original_hw: tuple[int, int]
) -> list[Row]:
    num_masks = 2 if settings.sizes == MINIMAL else 8
    found = [
        replace(
            time_mask_encoding(
                original_hw, kind, form, num_masks=num_masks, rounds=settings.rounds
            ),
            key=key,
            name=f"logits to RLE, {describe(original_hw)}, {kind} masks, {form}",
        )
        for kind in KINDS
    ]
    return [*found, _average(found, form, key, original_hw)]


def _average(
    found: list[Comparison], form: MaskForm, key: str, original_hw: tuple[int, int]
) -> Measurement:
    """The geometric mean of the ratios of each round."""
    void = Parity("kinds of masks that do not agree", sum(not one.is_valid for one in found), 0)
    values: tuple[float, ...] = (math.nan,)
    if void.is_passed:
        rounds = zip(*(one.ratios for one in found), strict=True)
        values = tuple(math.prod(ratios) ** (1 / len(ratios)) for ratios in rounds)
    return Measurement(
        key,
        f"logits to RLE, {describe(original_hw)}, {form}, mean of {' and '.join(KINDS)}",
        "x",
        values,
        (void,),
        target=TARGETS.get((form, original_hw)),
        higher_is_better=True,
    )
