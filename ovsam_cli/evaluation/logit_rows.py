"""Class logits of the objects of one image, as a row of a calibration's journal; no torch."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from ovsam_cli.evaluation.row_journal import describe_record, read_record
from ovsam_cli.evaluation.temperature import halve_logits
from ovsam_cli.structures import FloatArray, ImageRecord, IntArray


@dataclass(frozen=True, slots=True)
class LogitRow:
    """One image, or why it has no logits (`reason` and `message` of a failure).

    Attributes:
        record: the image.
        logits: (B, K + 1) float32, each row less its largest, in steps of half precision.
        true_rows: (B,) int64 place of the true name.
    """

    record: ImageRecord
    logits: FloatArray
    true_rows: IntArray
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, record: ImageRecord, logits: FloatArray, true_rows: IntArray) -> Self:
        """Logits of any offset, rounded to what is kept of them."""
        return cls(record, halve_logits(logits).astype(np.float32), true_rows)

    @classmethod
    def failed(cls, record: ImageRecord, reason: str, message: str) -> Self:
        """An image that could not be asked."""
        nothing: FloatArray = np.zeros((0, 1), np.float32)
        return cls(record, nothing, np.zeros(0, np.int64), reason, message)

    def to_json(self) -> bytes:
        """One line of ASCII JSON, without the line's end."""
        content = {
            **describe_record(self.record, self.reason, self.message),
            "num_logits": self.logits.shape[1],
            "true_rows": self.true_rows.tolist(),
            "logits": base64.b64encode(self.logits.astype("<f2").tobytes()).decode(),
        }
        return json.dumps(content, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the line is no such row.
        """
        content = json.loads(line)
        values = np.frombuffer(base64.b64decode(content["logits"]), "<f2")
        return cls(
            record=read_record(content),
            logits=values.astype(np.float32).reshape(-1, content["num_logits"]),
            true_rows=np.asarray(content["true_rows"], np.int64),
            reason=content["reason"],
            message=content["message"],
        )
