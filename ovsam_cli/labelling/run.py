"""One run, from the plan to the finished files; what is done survives whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ovsam_cli.labelling.failure_limit import FailureLimit
from ovsam_cli.labelling.finished_files import compute_source_hash, read_finished, write_finished
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.pipeline import label_batches
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.labelling.planner import (
    PreparedImage,
    ReadOptions,
    is_compiling_worthwhile,
    iter_unfinished,
    plan_batches,
)
from ovsam_cli.labelling.run_files import (
    PreviewWriter,
    RunSummary,
    build_fingerprint,
    write_failures,
    write_run_files,
)
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.structures import ImageRecord, ImageResult, Prompts

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
        num_finished: images that need no work, for an earlier start of the same run finished them.
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
        on_image_done: called with each finished image, in another thread, one at a time.

    Raises:
        InputError: something in the request cannot be used.
        CheckpointError: the weights are missing or broken.
        OutputError: the output folder cannot be written or is in use.
        TooManyFailuresError: more images failed than the request allows.
    """
    plan = plan_run(request)
    for notice in plan.notices:
        on_message(notice)
    with open_run(plan, on_message=on_message) as run:
        return finish_run(run, on_image_done=on_image_done, on_message=on_message)


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
            yield Run(plan, loaded, labeller, journal, len(find_finished(plan, journal)))


def find_finished(plan: RunPlan, journal: Journal) -> frozenset[str]:
    """File names of a plan's images that need no work."""
    done = journal.finished
    if plan.request.retry_failed:
        done -= journal.failed
    return done & {record.file_name for record in plan.records}


def finish_run(
    run: Run,
    *,
    on_image_done: OnImageDone,
    on_message: OnMessage = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunSummary:
    """Label the images that are left, then write the result files.

    Args:
        run: from `open_run`.
        on_image_done, on_message: as in `label_images`.
        should_stop: asked before each batch is begun.

    Raises:
        KeyboardInterrupt: `should_stop` said so; what was begun is finished and on disk.
        OutputError: a file cannot be written.
        TooManyFailuresError: more images failed than the request allows; `errors.jsonl` has them.
    """
    started = time.monotonic()
    finished, labeller = find_finished(run.plan, run.journal), run.labeller
    left = {record.file_name for record in run.plan.records} - finished
    previews = PreviewWriter(run.plan, labeller)
    limit = FailureLimit(run.plan.request.max_failures, run.journal.failed & finished)

    def write(result: ImageResult) -> None:
        # The missing images of a batch were computed together with those that were there.
        if result.record.file_name in left:
            run.journal.append(result)
            limit.count(result)
            on_image_done(result)

    def draw(image: PreparedImage, result: ImageResult) -> None:
        if image.rgb is not None and result.record.file_name in left:
            previews.write(image.rgb, result)

    label_batches(
        labeller,
        iter_unfinished(plan_run_batches(run.plan, labeller), finished),
        _read_options(run.plan, labeller, previews, len(left)),
        finish=draw,
        write=write,
        on_message=on_message,
        should_stop=lambda: should_stop() or limit.is_exceeded,
    )
    run.journal.flush()
    if limit.is_exceeded:
        write_failures(run.plan, run.journal.iter_failed(run.plan.records))
        raise limit.to_error(run.plan.request.out)
    if should_stop():
        raise KeyboardInterrupt
    return _write_results(run, seconds=time.monotonic() - started, num_labelled_now=len(left))


def _write_results(run: Run, *, seconds: float, num_labelled_now: int) -> RunSummary:
    """Write the result files, unless they are what they would become."""
    source_hash = compute_source_hash(run.plan, run.journal)
    before = read_finished(run.plan.request.out, source_hash)
    if before is not None:
        return replace(before, seconds=seconds, num_labelled_now=num_labelled_now)
    summary = write_run_files(
        run.plan,
        run.loaded,
        run.labeller,
        run.journal.iter_results(run.plan.records),
        seconds=seconds,
        num_labelled_now=num_labelled_now,
    )
    write_finished(summary, source_hash)
    return summary


def plan_run_batches(plan: RunPlan, labeller: Labeller) -> Iterator[tuple[ImageRecord, ...]]:
    """The batches of a run, the same however often it is stopped and goes on."""
    count = (lambda record: 0) if plan.prompts is None else plan.prompts.count_for
    return plan_batches(plan.records, count, batch_size=labeller.work_sizes().images)


def _read_options(
    plan: RunPlan, labeller: Labeller, previews: PreviewWriter, num_images: int
) -> ReadOptions:
    options = plan.request.options
    has_crops = options.grid is not None and options.grid.crop_layers > 0
    return ReadOptions(
        pixel_format=labeller.pixel_format,
        exif=options.exif,
        find_prompts=None if plan.prompts is None else partial(find_prompts, plan),
        keeps_rgb=lambda record: has_crops or previews.is_wanted(record),
        compiled=is_compiling_worthwhile(num_images),
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
