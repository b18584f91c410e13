"""Small inputs for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovsam_cli.structures import ImageRecord


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """(height, width, 3) uint8, different in every corner, smooth enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def disc_mask(
    height: int = 48,
    width: int = 64,
    *,
    center_yx: tuple[float, float] = (24, 32),
    radius: float = 10,
) -> np.ndarray:
    """(height, width) bool disc, cut by the frame."""
    y, x = np.mgrid[:height, :width]
    disc: np.ndarray = (y - center_yx[0]) ** 2 + (x - center_yx[1]) ** 2 <= radius**2
    return disc


def image_record(file_name: str = "a.jpg", image_id: int = 1) -> ImageRecord:
    """A record of a file that need not exist."""
    return ImageRecord(path=Path(file_name), file_name=file_name, image_id=image_id)
