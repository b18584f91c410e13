"""A worker without a network, for processes that tests start: writes empty results, or dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.journal_part import PartWriter
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.labelling.worker_link import RowDone, WorkerEnd
from ovsam_cli.outputs.coco import CocoCategory
from ovsam_cli.structures import Detections, ImageResult

FINGERPRINT = Fingerprint("a" * 64, "b" * 64, "c" * 64, "0.1.0", {"dtype": "float32"})
FACTS = RunFacts(
    fingerprint=FINGERPRINT,
    categories=(CocoCategory(1, "cat"),),
    weights={"name": "stub", "notice": "none"},
    options={},
    device="none",
    dtype="float32",
    batch_size=2,
)


@dataclass(frozen=True)
class Orders:
    """What a stub worker is to do.

    Attributes:
        marks: folder for notes that outlive the process.
        at_image: by file name: `die`, `die once`, `die once behind its row`, `raise`, `refuse`.
        at_start: by device, one of these, or `differ`.
        seconds: that an image takes.
        wait_for: notes without which no image is begun; a worker's own is `ready DEVICE`.
    """

    marks: Path
    at_image: Mapping[str, str] = field(default_factory=dict)
    at_start: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    wait_for: tuple[str, ...] = ()

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while not all((self.marks / name).exists() for name in self.wait_for):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def carry_out(self, order: str, mark: str) -> None:
        if "once" in order:
            if (self.marks / mark).exists():
                return
            (self.marks / mark).touch()
        if order.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "raise":
            raise RuntimeError("something is broken")
        if order == "refuse":
            raise InputError("weights that nobody has")


def run_stub(end: WorkerEnd, *, orders: Orders, device: str) -> None:
    """Label as ordered."""
    at_start = orders.at_start.get(device, "")
    orders.carry_out(at_start, device)
    facts = FACTS
    if at_start == "differ":
        facts = replace(FACTS, fingerprint=replace(FINGERPRINT, options={"dtype": "bfloat16"}))
    end.send(facts)
    begin = end.wait_for_begin()
    if begin is None:
        return
    (orders.marks / f"ready {device}").touch()
    orders.wait()
    with closing(PartWriter(begin.part)) as part:
        for batch in end.iter_batches():
            for record in () if batch is None else batch.records:
                time.sleep(orders.seconds)
                order = orders.at_image.get(record.file_name, "")
                if "row" not in order:
                    orders.carry_out(order, record.file_name)
                if batch is None or record.file_name not in batch.wanted:
                    continue
                result = ImageResult(record, "empty", (4, 6), detections=Detections.empty())
                position = part.append(result)
                orders.carry_out(order, record.file_name)
                end.send(RowDone(replace(result, detections=None), position))
