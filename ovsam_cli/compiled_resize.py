"""OpenCV's bilinear resize as a loop that Numba compiles; the same numbers as `raster`, optional.

Importing takes about a second, compiling a few once a machine (Numba keeps the result on disk). It
holds no GIL. Import it through `raster` only.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
# Both source positions of each output position, and their weights.
Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


def _resize(rgb: Bytes, columns: Taps, rows: Taps, resized: Bytes) -> None:
    left, right, left_weight, right_weight = columns
    top, bottom, top_weight, bottom_weight = rows
    # The two stretched source rows that the last output row came from.
    stretched = np.empty((2, resized.shape[1]), np.int32)
    held = np.full(2, -1, np.int64)
    for y in range(resized.shape[0]):
        upper = 1 if held[1] == top[y] else 0
        for turn in range(2):
            source = top[y] if turn == 0 else bottom[y]
            place = upper if turn == 0 else 1 - upper
            if held[place] != source:
                held[place] = source
                row, out = rgb[source], stretched[place]
                for x in range(len(left)):  # numbers of 32 bits stay such, and go in vectors
                    first, second = 3 * left[x], 3 * right[x]
                    near, far = left_weight[x], right_weight[x]
                    for channel in range(3):
                        total = np.int32(row[first + channel]) * near
                        total = np.int32(total + np.int32(row[second + channel]) * far)
                        out[3 * x + channel] = total >> 4
        above, below, line = top_weight[y], bottom_weight[y], resized[y]
        one, other = stretched[upper], stretched[1 - upper]
        for x in range(len(line)):
            value = np.int32(np.int32(one[x] * above) >> 16)
            value = np.int32(value + (np.int32(other[x] * below) >> 16))
            line[x] = np.uint8((value + 2) >> 2)


resize_rows: Callable[[Bytes, Taps, Taps, Bytes], None]
resize_rows = numba.njit(cache=True, nogil=True, error_model="numpy")(_resize)
