"""A large JPEG to the model's size: Pillow and OpenCV, and ours (C9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovsam_cli.benchmarking.comparison import Comparison, Parity, time_in_turns
from ovsam_cli.benchmarking.grid_filter import MODEL_SIZE, make_geometry
from ovsam_cli.benchmarking.measurement import Row, Skipped
from ovsam_cli.benchmarking.samples import write_photos
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings
from ovsam_cli.images import read_image
from ovsam_cli.raster import resize_bilinear

PHOTO_HW = (2448, 3264)  # 8 MP
RgbArray = NDArray[np.uint8]
Resize = Callable[[RgbArray, tuple[int, int]], RgbArray]


def compare_reading(settings: BenchSettings) -> list[Row]:
    """C9: decode an 8 MP JPEG and resize its long side to 1024, equal pixels."""
    hw = (240, 320) if settings.sizes == MINIMAL else PHOTO_HW
    folder = write_photos(settings.new_folder("jpeg"), count=1, hw=hw, num_different=1)
    path, output_hw = folder / "00000.jpg", make_geometry(hw).input_hw
    name = f"{hw[0] * hw[1] / 1e6:.0f} MP JPEG to {MODEL_SIZE}"
    resize = find_opencv_resize()
    if resize is None:
        return [Skipped("C9", name, "OpenCV is not installed (extra bench)")]
    rows: list[Row] = []
    for compiled, form in ((True, "Numba (long runs)"), (False, "NumPy (short runs)")):
        if compiled and find_spec("numba") is None:
            rows.append(Skipped("C9", f"{name}, {form}", "Numba is not installed (extra fast)"))
            continue
        baseline = partial(_read_plainly, path, output_hw, resize)
        ours = partial(_read, path, output_hw, compiled)
        differing = int((baseline() != ours()).any(axis=2).sum())
        theirs, own = time_in_turns(baseline, ours, rounds=settings.rounds)
        rows.append(
            Comparison(
                "C9",
                f"{name}, {form}",
                "core",
                theirs,
                own,
                (Parity("pixels that differ", differing, 0),),
                target=2.5 if compiled and hw == PHOTO_HW else None,
                note="Pillow's decoder and OpenCV's bilinear resize / `images.read_image`, its "
                "checksum of the file and `raster.resize_bilinear`, with whatever decoder is "
                "installed",
            )
        )
    return rows


def _read_plainly(path: Path, output_hw: tuple[int, int], resize: Resize) -> RgbArray:
    return resize(_decode_by_pillow(path), output_hw)


def _read(path: Path, output_hw: tuple[int, int], compiled: bool) -> RgbArray:
    return resize_bilinear(read_image(path).rgb, output_hw, compiled=compiled)


def _decode_by_pillow(path: Path) -> RgbArray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def find_opencv_resize() -> Resize | None:
    """OpenCV's bilinear resize to (height, width), with one thread; None if not installed."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)

    def resize(rgb: RgbArray, output_hw: tuple[int, int]) -> RgbArray:
        height, width = output_hw
        resized: RgbArray = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)
        return resized

    return resize
