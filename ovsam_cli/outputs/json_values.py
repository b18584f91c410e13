"""Values as they stand in our JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ovsam_cli.structures import FloatArray, Prompts

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)


def shortest_floats(values: FloatArray) -> list[float]:
    """Python floats with the fewest digits that give these float32 values again.

    Args:
        values: (n,) float32.
    """
    return [float(text) for text in values.astype(np.float32).astype(np.str_)]


def prompt_to_json(prompts: Prompts, row: int) -> dict[str, JsonValue]:
    """One prompt in the form of a prompt file: `points`, `labels`, `box`, `mask`, `score`.

    Only what the prompt has is there; coordinates are pixels of the original frame.
    """
    prompt: dict[str, JsonValue] = {}
    is_point = prompts.point_labels[row] >= 0
    if is_point.any():
        prompt["points"] = [shortest_floats(point) for point in prompts.point_coords[row, is_point]]
        prompt["labels"] = prompts.point_labels[row, is_point].tolist()
    if prompts.has_box[row]:
        prompt["box"] = shortest_floats(prompts.boxes_xyxy[row])
    mask = prompts.masks[row]
    if mask is not None:
        prompt["mask"] = {"size": list(mask["size"]), "counts": mask["counts"]}
    if not np.isnan(prompts.prompt_scores[row]):
        prompt["score"] = shortest_floats(prompts.prompt_scores[row : row + 1])[0]
    return prompt
