"""One run, from the plan to the finished files; what is done survives whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ovsam_cli.errors import ImageError
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.pipeline import label_batch, label_by_grid
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.labelling.planner import (
    ImageBatch,
    PreparedImage,
    iter_batches,
    iter_prepared,
    prepare_image,
)
from ovsam_cli.labelling.run_files import (
    PreviewWriter,
    RunSummary,
    build_fingerprint,
    write_run_files,
)
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.structures import Detections, ImageRecord, ImageResult, Prompts

OnMessage = Callable[[str], None]
OnImageDone = Callable[[ImageResult], None]


@dataclass(frozen=True, slots=True)
class Run:
    """An open run: planned, locked, weights loaded.

    Attributes:
        plan: what was asked for and found.
        loaded: the model with its hashes and licence.
        labeller: the model ready to label with this vocabulary.
        journal: what is finished.
        num_finished: images that an earlier start of the same run finished.
    """

    plan: RunPlan
    loaded: LoadedModel
    labeller: Labeller
    journal: Journal
    num_finished: int


def label_images(
    request: LabelRequest,
    *,
    on_message: OnMessage = lambda text: None,
    on_image_done: OnImageDone = lambda result: None,
) -> RunSummary:
    """Label all images of a request and write its output folder.

    Args:
        request: images, prompts, vocabulary, model, output folder and options.
        on_message: called with notices for a person.
        on_image_done: called with each finished image.

    Raises:
        InputError: something in the request cannot be used.
        CheckpointError: the weights are missing or broken.
        OutputError: the output folder cannot be written or is in use.
    """
    plan = plan_run(request)
    for notice in plan.notices:
        on_message(notice)
    with open_run(plan, on_message=on_message) as run:
        return finish_run(run, on_image_done=on_image_done)


@contextmanager
def open_run(plan: RunPlan, *, on_message: OnMessage) -> Iterator[Run]:
    """Lock the output folder, load the weights, embed the names, open the journal.

    Raises:
        InputError: the folder holds something else, or a run with other settings.
        OutputError: the folder cannot be written or is in use.
        CheckpointError: the weights are missing or broken.
    """
    request = plan.request
    with prepare_output(request.out, overwrite=request.overwrite) as lock:
        loaded, labeller = build_labeller(plan, on_message=on_message)
        fingerprint = build_fingerprint(plan, loaded, labeller)
        with Journal.open(request.out, fingerprint, restart=request.restart, lock=lock) as journal:
            names = {record.file_name for record in plan.records}
            yield Run(plan, loaded, labeller, journal, len(journal.finished & names))


def finish_run(run: Run, *, on_image_done: OnImageDone) -> RunSummary:
    """Label the images that are left, then write the result files."""
    started = time.monotonic()
    finished = run.journal.finished
    left = [record for record in run.plan.records if record.file_name not in finished]
    options = run.plan.request.options
    prepare = partial(
        prepare_image,
        pixel_format=run.labeller.pixel_format,
        exif=options.exif,
        find_prompts=None if run.plan.prompts is None else partial(find_prompts, run.plan),
    )
    previews = PreviewWriter(run.plan, run.labeller)
    prepared = iter_prepared(left, prepare, num_ahead=2 * options.batch_size)
    for item in iter_batches(prepared, batch_size=options.batch_size):
        for result in _label(run.labeller, item, previews):
            run.journal.append(result)
            on_image_done(result)
    run.journal.flush()
    return write_run_files(
        run.plan,
        run.loaded,
        run.labeller,
        run.journal.iter_results(run.plan.records),
        seconds=time.monotonic() - started,
        num_labelled_now=len(left),
    )


def find_prompts(
    plan: RunPlan, record: ImageRecord, original_hw: tuple[int, int]
) -> tuple[Prompts, tuple[str, ...]]:
    """The prompts of one image, and a notice for each that cannot be used."""
    assert plan.prompts is not None
    prompts, problems = plan.prompts.for_image(record, original_hw)
    return prompts, tuple(
        p.message if p.prompt_id is None else f"prompt {p.prompt_id}: {p.message}" for p in problems
    )


def _label(
    labeller: Labeller, item: ImageBatch | ImageResult, previews: PreviewWriter
) -> list[ImageResult]:
    if isinstance(item, ImageResult):
        return [item]
    grid = labeller.options.grid
    if grid is None:
        found = label_batch(labeller, item)
    else:
        found = [label_by_grid(labeller, image, grid) for image in item.images]
    results = [_to_result(image, one) for image, one in zip(item.images, found, strict=True)]
    for image, result in zip(item.images, results, strict=True):
        previews.write(image.rgb, result)
    return results


def _to_result(image: PreparedImage, found: Detections | ImageError) -> ImageResult:
    if isinstance(found, ImageError):
        return ImageResult(image.record, "failed", reason=found.reason, message=str(found))
    return ImageResult(
        record=image.record,
        status="ok" if len(found) else "empty",
        original_hw=image.geometry.original_hw,
        exif_orientation=image.exif_orientation,
        detections=found,
        warnings=image.warnings,
    )
