"""What the process of one device does: loads the model, labels the batches it is sent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from ovsam_cli.labelling.journal_part import PartWriter
from ovsam_cli.labelling.local_engine import LocalEngine, build_read_options, find_prompts
from ovsam_cli.labelling.pipeline import label_batches
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.planner import PreparedImage
from ovsam_cli.labelling.run_files import PreviewWriter
from ovsam_cli.labelling.worker_link import Begin, Notice, RowDone, WorkerEnd
from ovsam_cli.prompts import PromptSource
from ovsam_cli.structures import ImageRecord, ImageResult, Prompts


def run_device(
    end: WorkerEnd, *, plan: RunPlan, num_cores: int, on_start: Callable[[], object] | None
) -> None:
    """Label batches on one device until the parent says that all is done.

    Args:
        end: towards the parent.
        plan: without its images; its request names the device.
        num_cores: for the threads that read and finish images.
        on_start: what a program does for a process of its own, first of all.

    Raises:
        OvsamError: the model cannot be loaded, or the journal's part not be written.
    """
    warnings.simplefilter("ignore")  # a worker has no terminal; what counts is in its rows
    if on_start is not None:
        on_start()
    engine = LocalEngine.open(plan, on_message=lambda text: end.send(Notice(text)))
    end.send(engine.facts)
    begin = end.wait_for_begin()
    if begin is not None:
        with closing(PartWriter(begin.part)) as part:
            _DeviceRun(end, plan, engine, part).label(begin, num_cores)


class _DeviceRun:
    """What is known of the batches that the process has."""

    def __init__(
        self, end: WorkerEnd, plan: RunPlan, engine: LocalEngine, part: PartWriter
    ) -> None:
        self._end = end
        self._engine = engine
        self._part = part
        self._previews = PreviewWriter(plan, engine.facts.categories)
        self._wanted: set[str] = set()
        self._prompts: dict[str, PromptSource] = {}

    def label(self, begin: Begin, num_cores: int) -> None:
        has_prompts = self._engine.labeller.options.grid is None
        label_batches(
            self._engine.labeller,
            self._iter_batches(),
            build_read_options(
                self._engine.labeller,
                self._find_prompts if has_prompts else None,
                self._previews,
                num_images=begin.num_images,
            ),
            finish=self._draw,
            write=self._write,
            on_message=lambda text: self._end.send(Notice(text)),
            should_stop=self._end.is_stopping,
            num_cores=num_cores,
        )

    def _iter_batches(self) -> Iterator[tuple[ImageRecord, ...]]:
        for batch in self._end.iter_batches():
            if batch is None:
                yield ()
                continue
            self._wanted |= batch.wanted
            if batch.prompts is not None:
                self._prompts |= {record.file_name: batch.prompts for record in batch.records}
            yield batch.records

    def _find_prompts(
        self, record: ImageRecord, original_hw: tuple[int, int]
    ) -> tuple[Prompts, tuple[str, ...]]:
        return find_prompts(self._prompts[record.file_name], record, original_hw)

    def _draw(self, image: PreparedImage, result: ImageResult) -> None:
        if image.rgb is not None and result.record.file_name in self._wanted:
            self._previews.write(image.rgb, result)

    def _write(self, result: ImageResult) -> None:
        name = result.record.file_name
        self._prompts.pop(name, None)
        if name in self._wanted:
            self._wanted.discard(name)
            position = self._part.append(result)
            self._end.send(RowDone(replace(result, detections=None), position))
