"""What the fault tests share: processes, pictures, prompts and a whole run to compare with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cases import NUM_IMAGES, Case
from PIL import Image
from small_model import write_small_checkpoint
from starting import Starter


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that other users may read too, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="ovsam-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def starter(open_folder: Path) -> Iterator[Starter]:
    with Starter(open_folder) as starter:
        yield starter


@pytest.fixture(scope="session")
def case(starter: Starter, open_folder: Path) -> Case:
    """Two dozen small pictures with two prompts each."""
    rng = np.random.default_rng(11)
    case = Case(starter, open_folder, write_small_checkpoint(open_folder / "small.safetensors"))
    case.photos.mkdir()
    entries = []
    for number in range(NUM_IMAGES):
        name = f"{number:03d}.png"
        pixels = rng.integers(0, 255, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(case.photos / name)
        entries.append({"file_name": name, "boxes": [[3, 3, 40, 30]], "points": [[20, 20]]})
    (open_folder / "prompts.json").write_text(json.dumps({"images": entries}))
    return case


@pytest.fixture(scope="session")
def whole(case: Case) -> bytes:
    """`annotations.json` of a run that nothing happened to."""
    ended = case.run(case.folder / "whole")
    assert ended.code == 0, ended.err
    return (case.folder / "whole" / "annotations.json").read_bytes()
