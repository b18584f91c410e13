"""The comparison of mask encoding runs, and its proof of equality holds."""

from __future__ import annotations

import pytest

from ovsam_cli.benchmarking.mask_encoding import MaskForm, MaskKind, time_mask_encoding


@pytest.mark.parametrize("kind", ["smooth", "wiggly"])
@pytest.mark.parametrize("form", ["numpy", "compiled"])
def test_results_agree(kind: MaskKind, form: MaskForm) -> None:
    if form == "compiled":
        pytest.importorskip("numba")
    found = time_mask_encoding((60, 80), kind, form, num_masks=2)
    assert found.is_valid and len(found.our_seconds) == 5
