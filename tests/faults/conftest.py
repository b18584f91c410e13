"""What the fault tests share: processes, pictures, prompts and a whole run to compare with."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from cases import NUM_IMAGES, Case
from PIL import Image
from small_model import write_small_checkpoint
from starting import Starter


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    with Starter(tmp_path_factory.mktemp("processes")) as starter:
        yield starter


@pytest.fixture(scope="session")
def case(starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Two dozen small pictures with two prompts each."""
    rng = np.random.default_rng(11)
    folder = tmp_path_factory.mktemp("case")
    case = Case(starter, folder, write_small_checkpoint(folder / "small.safetensors"))
    case.photos.mkdir()
    entries = []
    for number in range(NUM_IMAGES):
        name = f"{number:03d}.png"
        pixels = rng.integers(0, 255, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(case.photos / name)
        entries.append({"file_name": name, "boxes": [[3, 3, 40, 30]], "points": [[20, 20]]})
    (folder / "prompts.json").write_text(json.dumps({"images": entries}))
    return case


@pytest.fixture(scope="session")
def whole(case: Case) -> bytes:
    """`annotations.json` of a run that nothing happened to."""
    ended = case.run(case.folder / "whole")
    assert ended.code == 0, ended.err
    return (case.folder / "whole" / "annotations.json").read_bytes()
