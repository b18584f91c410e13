"""One image asked many times gives what a run gives, and encodes once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labeller_builders import (
    build_small_labeller,
    make_label_prompts,
    prepare_all,
    read_options,
    write_records,
)

from ovsam_cli.errors import InputError
from ovsam_cli.images import read_image
from ovsam_cli.labelling.interactive import encode_image, label_prompts, make_prompt
from ovsam_cli.labelling.pipeline import label_batch
from ovsam_cli.labelling.planner import ImageBatch
from ovsam_cli.structures import Detections


def test_same_objects_as_in_a_run(tmp_path: Path) -> None:
    labeller = build_small_labeller()
    records = write_records(tmp_path, [(60, 80)])
    (prepared,) = prepare_all(records, read_options(labeller, lambda record: "bpnam"))
    (wanted,) = label_batch(labeller, ImageBatch.of([prepared]))
    assert isinstance(wanted, Detections)
    encoded = encode_image(labeller, read_image(records[0].path).rgb)
    found = label_prompts(labeller, encoded, make_label_prompts("bpnam", (60, 80), seed=1))
    assert found.segmentations == wanted.segmentations
    assert found.prompt_ids == wanted.prompt_ids
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert encoded.num_bytes > 60 * 80


def test_prompts_one_by_one_give_the_same(tmp_path: Path) -> None:
    labeller = build_small_labeller()
    (record,) = write_records(tmp_path, [(60, 80)])
    encoded = encode_image(labeller, read_image(record.path).rgb)
    prompts = make_label_prompts("bbp", (60, 80))
    together = label_prompts(labeller, encoded, prompts)
    for row in range(3):
        alone = label_prompts(labeller, encoded, prompts.take(np.array([row])))
        place = together.prompt_ids.index(prompts.prompt_ids[row])
        assert alone.segmentations[0] == together.segmentations[place]
        np.testing.assert_allclose(alone.scores[0], together.scores[place], rtol=1e-5)


def test_no_object_is_an_empty_answer(tmp_path: Path) -> None:
    labeller = build_small_labeller()
    labeller = replace(labeller, options=replace(labeller.options, min_score=1.0))
    (record,) = write_records(tmp_path, [(60, 80)])
    encoded = encode_image(labeller, read_image(record.path).rgb)
    assert len(label_prompts(labeller, encoded, make_prompt(points=[(9, 9)], labels=[1]))) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no point on the object and no box"),
        ({"points": [(1, 1)], "labels": [0]}, "no point on the object and no box"),
        ({"points": [(1, 1)], "labels": [1, 1]}, "1 points with labels"),
        ({"points": [(1, 1)], "labels": [3]}, "0 or 1 for each point"),
        ({"points": [(np.nan, 1)], "labels": [1]}, "NaN or infinite"),
        ({"box_xyxy": (5, 5, 5, 9)}, "no area"),
        ({"box_xyxy": (5, 5, np.inf, 9)}, "NaN or infinite"),
    ],
)
def test_prompts_that_are_none(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_prompt(**given)
