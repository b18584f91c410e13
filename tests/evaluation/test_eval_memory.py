"""Peak memory of a whole run of `ovsam eval prompted`: ten times the images take no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask
from coco_toys import Entry, entry
from PIL import Image

pytestmark = pytest.mark.slow

OBJECTS = 8
# Ids, names and paths of the images are kept, about a kilobyte each; the rest is the allocator's.
# With 500 and 5,000 images 837 and 870 MB were measured, most of it PyTorch itself.
SLACK = 64 * 2**20


def write_images(folder: Path, num_images: int) -> Path:
    """COCO annotations of small images, which are all one file."""
    images_folder = folder / "images"
    images_folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    masks = [disc_mask(radius=4 + number, center_yx=(20, 30)) for number in range(OBJECTS)]
    kept = [entry(0, 0, 1 + number % 2, mask) for number, mask in enumerate(masks)]
    images: list[Entry] = []
    objects: list[Entry] = []
    for number in range(1, num_images + 1):
        name = f"{number}.png"
        os.link(folder / "one.png", images_folder / name)
        images.append({"id": number, "file_name": name, "height": 48, "width": 64})
        objects += [
            one | {"id": len(objects) + n, "image_id": number} for n, one in enumerate(kept)
        ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def measure_peak(*arguments: str | Path) -> int:
    """Bytes of memory that `ovsam` with these arguments had at most."""
    command = [sys.executable, "-m", "ovsam_cli", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ}
    )
    assert process.stderr is not None
    message = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, message
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize(("answerer", "sizes"), [("ellipse", (500, 5000)), ("model", (50, 500))])
def test_ten_times_the_images(
    answerer: str, sizes: tuple[int, int], checkpoint: Path, tmp_path: Path
) -> None:
    """The model answers fewer images: what is read and kept of each is the same."""
    more: list[str | Path] = ["--baseline", "ellipse"]
    if answerer == "model":
        more = ["--model", checkpoint, "--devices", "cpu"]
    peaks = []
    for num_images in sizes:
        folder = write_images(tmp_path / str(num_images), num_images)
        peaks.append(measure_peak("eval", "prompted", folder, *more, "--out", folder / "out", "-q"))
    print(f"PEAK {answerer} {sizes} images: {[peak // 10**6 for peak in peaks]} MB")
    assert peaks[1] - peaks[0] < SLACK
