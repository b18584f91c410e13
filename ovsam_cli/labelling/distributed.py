"""Batches handed out to one process a device, where processes may die; no torch.

A few batches are with each worker, the rest waits, so that fast devices get more. When a worker
dies, what it had is tried again, one batch at a time and alone on a worker: the next death tells
which batch it is. A batch that two workers died of is tried image by image, and an image that kills
once more becomes a failed row. Rows that a dead worker wrote count, reported or not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from ovsam_cli.labelling.engine import LabelJob
from ovsam_cli.labelling.journal_index import RowPosition
from ovsam_cli.labelling.worker_link import Batch, Begin, Stop
from ovsam_cli.labelling.worker_pool import Seat, Task, WorkerPool
from ovsam_cli.structures import ImageResult

DIED = "worker_died"
# Those that are read ahead and those whose masks are made; on the CPU a batch takes seconds, and
# the last ones should not all be with one worker.
AHEAD_ON_CPU, AHEAD = 3, 8


class Dispatcher:
    """Hands out what is left of a run.

    Args:
        pool: the workers, the first of them ready.
        job: what is left.
    """

    def __init__(self, pool: WorkerPool, job: LabelJob) -> None:
        self._pool = pool
        self._job = job
        self._upcoming = iter(job.batches)
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()  # a worker died with them

    def run(self) -> None:
        """Label everything, or as much as `should_stop` allows.

        Raises:
            DeviceError: no device is left to go on with.
            OutputError: a journal part cannot be written.
        """
        while self._is_anything_left():
            if self._job.should_stop():
                self._stop()
                return
            for seat in self._pool.seats:
                self._fill(seat)
            for seat in self._pool.wait():
                self._listen(seat)
        self._pool.end()

    def _is_anything_left(self) -> bool:
        if not self._waiting and (batch := next(self._upcoming, None)) is not None:
            wanted = {r.file_name for r in batch if r.file_name in self._job.left}
            self._waiting.append(Task(batch, wanted))
        return bool(self._waiting or self._suspects or any(s.tasks for s in self._pool.seats))

    def _fill(self, seat: Seat) -> None:
        """Give a worker as much as it should have, and a device without one a new one."""
        if seat.is_given_up or seat.is_alone:
            return
        if seat.worker is None:
            self._pool.start(seat)
        if not seat.is_ready:
            return
        if seat.part is None:
            self._begin(seat)
        if self._suspects and not seat.tasks:
            seat.is_alone = True
            self._give(seat, self._suspects.popleft())
            return
        num_ahead = AHEAD_ON_CPU if seat.device == "cpu" else AHEAD
        while len(seat.tasks) < num_ahead and self._is_anything_left() and self._waiting:
            self._give(seat, self._waiting.popleft())

    def _begin(self, seat: Seat) -> None:
        assert seat.worker is not None
        seat.part = self._job.journal.begin_part()
        seat.worker.send(Begin(seat.part, len(self._job.left) // len(self._pool.seats)))

    def _give(self, seat: Seat, task: Task) -> None:
        assert seat.worker is not None
        prompts = self._job.plan.prompts
        batch = Batch(
            task.records,
            frozenset(task.wanted),
            None if prompts is None else prompts.take(task.records),
        )
        seat.tasks.append(task)
        seat.worker.send(batch)

    def _listen(self, seat: Seat) -> None:
        """Note the rows that a worker wrote; mourn it if it died."""
        is_dead = self._pool.is_dead(seat)  # asked first: all it said is in the pipe by then
        for message in self._pool.receive(seat):
            self._note(seat, message.result, message.position)
        if is_dead:
            self._mourn(seat)

    def _note(self, seat: Seat, result: ImageResult, position: RowPosition) -> None:
        name = result.record.file_name
        task = next(task for task in seat.tasks if name in task.wanted)
        self._job.journal.index.put(name, position)
        self._count(task, result)
        seat.num_deaths = 0
        if not task.wanted:
            seat.tasks.remove(task)
            seat.is_alone = False

    def _count(self, task: Task, result: ImageResult) -> None:
        task.wanted.discard(result.record.file_name)
        self._job.on_result(result)

    def _mourn(self, seat: Seat) -> None:
        """Sort out what a dead worker had."""
        tasks, was_alone, part = seat.tasks, seat.is_alone, seat.part
        seat.tasks, seat.is_alone, seat.part = [], False, None
        index = self._job.journal.index
        if part is not None and part.exists():
            index.read_part(part)
        for task in tasks:
            written = [
                record
                for record in task.records
                if record.file_name in task.wanted
                and (row := index.find_row(record.file_name)) is not None
                and row.part == part
            ]
            for _, result in index.iter_pairs(written):
                self._count(task, replace(result, detections=None))
        how = self._pool.bury(seat)
        for task in tasks:
            if task.wanted:
                self._suspect(seat, task, how, was_alone=was_alone)

    def _suspect(self, seat: Seat, task: Task, how: str, *, was_alone: bool) -> None:
        """Try a task again, in smaller pieces, or give its image up."""
        task.num_deaths += 1
        if not was_alone or task.num_deaths < 2:
            self._suspects.append(task)
            return
        missing = [record for record in task.records if record.file_name in task.wanted]
        if len(task.records) > 1:
            singles = [Task((record,), {record.file_name}, num_deaths=1) for record in missing]
            self._suspects.extendleft(reversed(singles))
            return
        (record,) = missing
        result = ImageResult(
            record,
            "failed",
            reason=DIED,
            message=f"{record.path}: the worker process {how} whenever it had this image",
        )
        self._job.journal.append(result)
        self._count(task, result)
        seat.num_deaths = 0  # one trouble less

    def _stop(self) -> None:
        """Let workers finish what is on their devices."""
        for seat in self._pool.seats:
            if seat.worker is not None:
                seat.worker.send(Stop())
        for seat, row in self._pool.wind_up():
            self._note(seat, row.result, row.position)
