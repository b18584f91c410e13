"""What became of the objects of one image, as a row of an evaluation's journal; no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

from ovsam_cli.evaluation.row_journal import describe_record, read_record
from ovsam_cli.structures import ImageRecord, Rle


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One object and the answer to its prompt.

    Attributes:
        annotation_id, category_id, area: of the ground truth.
        iou, boundary_iou: of the two masks.
        segmentation: the answer.
        said_row: row in the vocabulary of the best name by the first rule; None without names.
        score: its probability, nan without names.
        ranks: how many names beat the true one, by the rules' places; -1 where it does not compete.
    """

    annotation_id: int
    category_id: int
    area: int
    iou: float
    boundary_iou: float
    segmentation: Rle
    said_row: int | None
    score: float
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image: its objects, or why it has none (`reason` and `message` of a failure)."""

    record: ImageRecord
    instances: tuple[InstanceRow, ...] = ()
    reason: str = ""
    message: str = ""

    def to_json(self) -> bytes:
        """One line of ASCII JSON, without the line's end."""
        content = {
            **describe_record(self.record, self.reason, self.message),
            "instances": [_instance_to_json(one) for one in self.instances],
        }
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the line is no such row.
        """
        content = json.loads(line)
        return cls(
            record=read_record(content),
            instances=tuple(_instance_from_json(one) for one in content["instances"]),
            reason=content["reason"],
            message=content["message"],
        )


def _instance_to_json(one: InstanceRow) -> dict[str, object]:
    values = asdict(one)
    values["score"] = None if one.said_row is None else one.score
    return values


def _instance_from_json(values: dict[str, object]) -> InstanceRow:
    ranks = values.pop("ranks")
    score = values.pop("score")
    assert isinstance(ranks, list)
    number = float("nan") if score is None else score
    return InstanceRow(**values, score=number, ranks=tuple(ranks))  # type: ignore[arg-type]
