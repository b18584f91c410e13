"""What became of the objects of one image, as a journal row; no torch.

    OUT/.ovsam/part-00000.jsonl   one line an image, in the form of `labelling.journal_index`

The row begins as those of `ovsam label` do, so the same code finds the rows of a part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ovsam_cli.labelling.fingerprint import Fingerprint, check_manifest, write_manifest
from ovsam_cli.labelling.journal_index import (
    MANIFEST_FILE,
    PREFIX_BYTES,
    RowIndex,
    RowPosition,
    format_line,
)
from ovsam_cli.labelling.run_folder import STATE_FOLDER, RunLock
from ovsam_cli.outputs.files import output_error
from ovsam_cli.structures import ImageRecord, Rle, Status

PART = "part-00000.jsonl"


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


def row_to_json(row: ImageRow) -> bytes:
    """One line of ASCII JSON, without the line's end."""
    record = row.record
    content: dict[str, object] = {
        "file_name": record.file_name,
        "image_id": record.image_id,
        "path": str(record.path),
        "status": "failed" if row.reason else "ok",
        "reason": row.reason,
        "message": row.message,
        "instances": [_instance_to_json(one) for one in row.instances],
    }
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def row_from_json(line: bytes) -> ImageRow:
    """Read what `row_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: the line is no such row.
    """
    content = json.loads(line)
    return ImageRow(
        record=ImageRecord(Path(content["path"]), content["file_name"], content["image_id"]),
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


class RowJournal:
    """The open rows of an evaluation; a context manager. A killed run goes on behind its last row.

    Args:
        out: a folder made ready by `run_folder.prepare_output`.
        fingerprint: the settings that decide the rows.
        lock: on the folder.
        restart: drop the rows of earlier runs first.

    Raises:
        InputError: the folder holds rows of other settings; they are named.
        OutputError: it cannot be written.
    """

    def __init__(
        self, out: Path, fingerprint: Fingerprint, *, lock: RunLock, restart: bool = False
    ) -> None:
        self.lock = lock
        self._part = out / STATE_FOLDER / PART
        manifest = out / STATE_FOLDER / MANIFEST_FILE
        try:
            if restart:
                self._part.unlink(missing_ok=True)
                manifest.unlink(missing_ok=True)
            if manifest.exists():
                check_manifest(manifest, fingerprint)
            else:
                write_manifest(manifest, fingerprint)
            self._file: BinaryIO = open(self._part, "ab+", buffering=0)
            self.index = RowIndex()
            self._end = self.index.read_part(self._part)
            self._file.truncate(self._end)
        except OSError as error:
            raise output_error(self._part, error) from error

    @property
    def finished(self) -> frozenset[str]:
        """File names of the images that have a row."""
        return self.index.file_names()

    def append(self, row: ImageRow) -> None:
        """Add the row of an image.

        Raises:
            OutputError: the disk is full or gone; the rows before are kept.
        """
        line = format_line(row_to_json(row))
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            self._file.truncate(self._end)
            raise output_error(self._part, error) from error
        status: Status = "failed" if row.reason else "ok"
        position = RowPosition(self._part, self._end, len(line), row.record.image_id, status)
        self.index.put(row.record.file_name, position)
        self._end += len(line)

    def iter_rows(self, records: Sequence[ImageRecord]) -> Iterator[ImageRow]:
        """The rows of images, in their order, one at a time; images without a row are left out."""
        for record in records:
            position = self.index.find_row(record.file_name)
            if position is not None:
                self._file.seek(position.offset)
                yield row_from_json(self._file.read(position.num_bytes)[PREFIX_BYTES:-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self.lock.release()
