"""Numbers as they stand in our JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ovsam_cli.structures import FloatArray

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)


def shortest_floats(values: FloatArray) -> list[float]:
    """Python floats with the fewest digits that give these float32 values again.

    Args:
        values: (n,) float32.
    """
    return [float(text) for text in values.astype(np.float32).astype(np.str_)]
