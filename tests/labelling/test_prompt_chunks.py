"""Groups of prompts without filler, and fixed chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from labeller_builders import make_label_prompts

from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.prompt_chunks import (
    choose_chunk,
    fill_up,
    group_by_layout,
    without_filler,
)
from ovsam_cli.model.prompt_encoder import PromptLayout
from ovsam_cli.structures import ImageGeometry, Prompts

HW = (60, 80)


def test_every_prompt_is_in_the_group_of_its_layout() -> None:
    prompts = make_label_prompts("bpnbmpab", HW)
    groups = group_by_layout(prompts)
    assert [rows.tolist() for rows in groups] == [[0, 3, 7], [1, 5], [2], [4], [6]]
    assert group_by_layout(Prompts.concatenate([])) == []


@pytest.mark.parametrize("kinds", ["ppp", "bb", "nn", "aa", "m"])
def test_a_group_has_no_filler(kinds: str) -> None:
    prompts = make_label_prompts(kinds, HW)
    trimmed = without_filler(prompts)
    assert (trimmed.point_labels >= 0).all()
    for row in range(len(prompts)):
        is_point = prompts.point_labels[row] >= 0
        np.testing.assert_array_equal(
            trimmed.point_coords[row], prompts.point_coords[row, is_point]
        )
        np.testing.assert_array_equal(
            trimmed.point_labels[row], prompts.point_labels[row, is_point]
        )


@pytest.mark.parametrize("largest", [1, 2, 3, 16, 100, 256])
@pytest.mark.parametrize("num_prompts", [1, 15, 16, 17, 300, 1024])
def test_fixed_chunks_have_three_sizes(largest: int, num_prompts: int) -> None:
    left, sizes, rows = num_prompts, set(), 0
    while left:
        taken, filled = choose_chunk(left, largest, fixed=True)
        assert 1 <= taken <= filled <= largest and taken <= left
        left, rows = left - taken, rows + filled
        sizes.add(filled)
    assert len(sizes) <= 3 and sizes <= {largest, max(1, largest // 4), max(1, largest // 16)}
    assert rows < num_prompts + max(1, largest // 16)  # what filling costs


def test_chunks_of_any_size_are_not_filled() -> None:
    assert choose_chunk(7, 64, fixed=False) == (7, 7)
    assert choose_chunk(70, 64, fixed=False) == (64, 64)


def test_filling_repeats_the_last_prompt() -> None:
    prompts = make_label_prompts("bp", HW)
    filled = fill_up(prompts, 5)
    assert filled.prompt_ids == ("b0", "p1", "p1", "p1", "p1")
    assert fill_up(prompts, 2) is prompts


@pytest.mark.parametrize(
    ("kinds", "layout"),
    [("bb", "boxed"), ("nn", "unboxed"), ("mm", "unboxed"), ("aa", "boxed"), ("bm", "mixed")],
)
def test_prompts_of_a_group_are_known_to_be_alike(kinds: str, layout: PromptLayout) -> None:
    """So that the network need not ask a device for it."""
    geometries = [ImageGeometry(HW, (96, 128), 128)]
    prompts = without_filler(make_label_prompts(kinds, HW))
    found = to_model_prompts(prompts, geometries, device=torch.device("cpu"))
    assert found.layout == found.take(slice(0, 1)).layout == layout


def test_prompts_with_filler_are_not_alike() -> None:
    geometries = [ImageGeometry(HW, (96, 128), 128)]
    prompts = make_label_prompts("pp", HW)
    found = to_model_prompts(prompts, geometries, device=torch.device("cpu"))
    assert found.layout == "mixed"
