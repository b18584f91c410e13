"""Write resize_cv2.npz: OpenCV's INTER_LINEAR on small images, shrunk, enlarged and halved.

    pip install opencv-python-headless==5.0.0 numpy && python tests/golden/make_resize_golden.py

4.14.0 gives the same bytes.
"""

from pathlib import Path

import numpy as np

SIZES = {  # name: ((height, width), (new height, new width))
    "shrink": ((75, 100), (24, 32)),
    "shrink_odd": ((61, 47), (32, 25)),
    "shrink_slightly": ((33, 25), (32, 24)),
    "halve": ((48, 64), (24, 32)),
    "enlarge": ((15, 20), (24, 32)),
    "enlarge_odd": ((13, 7), (32, 17)),
    "one_pixel": ((1, 1), (32, 32)),
    "one_row": ((1, 90), (1, 32)),
    "one_column": ((90, 1), (32, 1)),
    "two_by_three": ((2, 3), (21, 32)),
}


def make_image(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 with hard edges and every level."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return ((x * 97 + y * 57 + channel * 31 + (x * y) % 7 * 40) % 256).astype(np.uint8)


if __name__ == "__main__":
    import cv2

    np.savez_compressed(
        Path(__file__).with_name("resize_cv2.npz"),
        **{
            name: cv2.resize(make_image(*hw), out_hw[::-1], interpolation=cv2.INTER_LINEAR)
            for name, (hw, out_hw) in SIZES.items()
        },
    )
