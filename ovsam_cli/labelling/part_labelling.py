"""Labels one part of a run in this process, and writes it into the ledger's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ovsam_cli.labelling.local_engine import LocalEngine, build_read_options, find_prompts
from ovsam_cli.labelling.part_ledger import PartJob, PartLedger, PartStats, PartTries
from ovsam_cli.labelling.pipeline import label_batches
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_files import PreviewWriter, build_error_rows
from ovsam_cli.outputs.parquet import ParquetHeader, part_to_bytes
from ovsam_cli.structures import ImageRecord, ImageResult

# A machine may be taken away, its processes ended for want of memory; but a part that ended this
# many is looked at image by image, and an image that then ends this many is not tried any more.
BEGINNINGS_AT_ONCE = 2
DEATHS_OF_AN_IMAGE = 2


@dataclass(frozen=True, slots=True)
class PartWorker:
    """What a process needs for any part.

    Attributes:
        plan: without its images.
        engine: the model.
        ledger: in the folder the parts go to.
        header: of the parts, but for their first id.
    """

    plan: RunPlan
    engine: LocalEngine
    ledger: PartLedger
    header: ParquetHeader

    def label(self, job: PartJob) -> PartStats:
        """Label a part, unless it is complete already.

        Raises:
            OutputError: it cannot be written.
        """
        done = self.ledger.read_stats(job.number)
        if done is not None and done.number in self.ledger.list_done():
            return done
        started = time.monotonic()
        tries = self.ledger.begin(job.number)
        if tries.num_begun <= BEGINNINGS_AT_ONCE:
            results = self._label_batches(job, job.batches)
        else:
            results = list(self._label_alone(job, tries))
        results.sort(key=lambda result: result.record.image_id)
        header = ParquetHeader(
            self.header.categories, self.header.coco, self.header.settings, job.first_image_id
        )
        stats = _sum_up(job, results, seconds=time.monotonic() - started)
        self.ledger.finish_part(part_to_bytes(results, header), stats)
        return stats

    def _label_batches(
        self, job: PartJob, batches: tuple[tuple[ImageRecord, ...], ...]
    ) -> list[ImageResult]:
        results: list[ImageResult] = []
        find = None if job.prompts is None else partial(find_prompts, job.prompts)
        previews = PreviewWriter(self.plan, self.engine.facts.categories)
        label_batches(
            self.engine.labeller,
            batches,
            build_read_options(self.engine.labeller, find, previews, num_images=job.num_images),
            finish=lambda image, result: None,
            write=results.append,
            on_message=lambda text: None,
        )
        return results

    def _label_alone(self, job: PartJob, tries: PartTries) -> Iterator[ImageResult]:
        """Image by image, each noted before it is touched."""
        for batch in job.batches:
            for record in batch:
                if tries.deaths.get(record.file_name, 0) >= DEATHS_OF_AN_IMAGE:
                    message = f"{record.path}: the process that labelled it ended, again and again"
                    yield ImageResult(record, "failed", reason="worker_died", message=message)
                    continue
                self.ledger.take_in_hand(job.number, tries, record.file_name)
                yield from self._label_batches(job, ((record,),))


def _sum_up(job: PartJob, results: list[ImageResult], *, seconds: float) -> PartStats:
    return PartStats(
        number=job.number,
        num_images=len(results),
        num_failed=sum(result.status == "failed" for result in results),
        num_objects=sum(len(r.detections) for r in results if r.detections is not None),
        num_notices=sum(len(result.warnings) for result in results),
        errors=[row for result in results for row in build_error_rows(result)],
        seconds=round(seconds, 3),
    )
