"""Row 3 of the fault table: hostile image files, more than sixty of them, among good ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cases import BOUND_BY_PERMISSIONS, Case
from make_corpus import ANY, LABELLED, LONG_NAME, NOT_UTF8, make_corpus

COUNTED = """
import os, sys
from ovsam_cli.labelling import local_engine
label_batches = local_engine.label_batches
def counted(*args, **kwargs):
    before = len(os.listdir("/proc/self/fd"))
    label_batches(*args, **kwargs)
    print("descriptors", len(os.listdir("/proc/self/fd")) - before, file=sys.stderr)
local_engine.label_batches = counted
"""


@pytest.mark.parametrize("batch_size", ["1", "8"])
def test_a_hostile_corpus(case: Case, tmp_path: Path, batch_size: str) -> None:
    """Every good image is labelled, each bad one stands in errors.jsonl with class and reason;
    exit code 3; nothing hangs and no descriptor is lost.
    """
    photos = tmp_path / "photos"
    photos.mkdir()
    expected = make_corpus(photos)
    assert len(expected) >= 60
    out = tmp_path / "out"
    args = [
        *("label", photos, "--grid", "2", "--min-stability", "0", "--vocab", "cat, dog, zebra"),
        *("--model", case.checkpoint, "--devices", "cpu", "--out", out),
        *("--batch-size", batch_size),
    ]
    ended = case.starter.run(args, setup=BOUND_BY_PERMISSIONS + COUNTED, timeout=120)
    assert ended.code == 3, ended.err
    assert "descriptors 0\n" in ended.err
    assert "Traceback" not in ended.err and "Warning" not in ended.err

    rows = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    failed = {row["file_name"]: row for row in rows if row["level"] == "error"}
    assert failed.keys() == {name for name, reason in expected.items() if reason != LABELLED}
    for name, row in failed.items():
        assert expected[name] in (row["reason"], ANY), row
        assert os.path.basename(name) in row["message"]
    content = json.loads((out / "annotations.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    assert set(names) == {name for name, reason in expected.items() if reason == LABELLED}
    assert len(set(names)) == len(names)
    assert {NOT_UTF8, LONG_NAME, "same-stem.jpg", "same-stem.png", "same/stem.jpg"} <= set(names)
    warned = {row["file_name"] for row in rows if row["level"] == "warning"}
    assert {"gray-16-bit.png", "gray-float.tif", "cmyk.jpg", "pages.tif", "animation.gif"} <= warned
