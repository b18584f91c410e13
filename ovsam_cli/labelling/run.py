"""One run, from the plan to the finished files; what is done survives whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain

from ovsam_cli.labelling.device_engine import (
    find_local_rank,
    open_device_engine,
    resolve_devices,
)
from ovsam_cli.labelling.engine import LabelEngine, LabelJob
from ovsam_cli.labelling.failure_limit import FailureLimit
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.finished_files import (
    compute_source_hash,
    read_finished,
    recall_finished,
    write_finished,
)
from ovsam_cli.labelling.journal import Journal, read_state_settings
from ovsam_cli.labelling.kept_threads import keep_threads
from ovsam_cli.labelling.local_engine import LocalEngine
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.labelling.planner import iter_unfinished, plan_batches
from ovsam_cli.labelling.run_description import (
    RunDescription,
    compute_images_hash,
    write_description,
)
from ovsam_cli.labelling.run_facts import RunFacts, build_coco_options
from ovsam_cli.labelling.run_files import RunSummary, write_failures, write_run_files
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.labelling.sending import check_target, send_results
from ovsam_cli.labelling.shards import check_shards_folder
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.structures import ImageRecord, ImageResult

OnMessage = Callable[[str], None]
OnImageDone = Callable[[ImageResult], None]


@dataclass(frozen=True, slots=True)
class Run:
    """An open run: planned, locked, weights loaded.

    Attributes:
        plan: what was asked for and found, all shards' images included.
        engine: labels batches.
        records: the images of this run: all, or those of its shard.
        journal: what is finished.
        num_finished: images that need no work, for an earlier start of the same run finished them.
    """

    plan: RunPlan
    engine: LabelEngine
    records: tuple[ImageRecord, ...]
    journal: Journal
    num_finished: int = 0


def label_images(
    request: LabelRequest,
    *,
    on_message: OnMessage = lambda text: None,
    on_image_done: OnImageDone = lambda result: None,
) -> RunSummary:
    """Label all images of a request and write its output folder.

    With several devices, call it under `if __name__ == "__main__":`, as for every program that
    starts processes.

    Args:
        request: images, prompts, vocabulary, model, output folder and options.
        on_message: called with notices for a person.
        on_image_done: called with each finished image, in another thread, one at a time; without
            its objects where another process has labelled it.

    Raises:
        InputError: something in the request cannot be used.
        CheckpointError: the weights are missing or broken.
        OutputError: the output folder cannot be written or is in use.
        DeviceError: no device is left to go on with.
        TooManyFailuresError: more images failed than the request allows.
    """
    plan = plan_run(request)
    for notice in plan.notices:
        on_message(notice)
    finished = recall_finished(plan)
    if finished is not None:
        return finished
    with open_run(plan, on_message=on_message) as run:
        return finish_run(run, on_image_done=on_image_done, on_message=on_message)


@contextmanager
def open_run(
    plan: RunPlan,
    *,
    on_message: OnMessage,
    on_worker_start: Callable[[], object] | None = None,
) -> Iterator[Run]:
    """Lock the output folder, load the weights, embed the names, open the journal.

    Args:
        plan: what was asked for and found.
        on_message: called with what a person should know.
        on_worker_start: called first in each process that is started; a function of a module.

    Raises:
        InputError: the folder holds something else, or a run with other settings.
        OutputError: the folder cannot be written or is in use.
        CheckpointError: the weights are missing or broken.
    """
    request = plan.request
    if request.shard is not None:
        check_shards_folder(request.out, overwrite=request.overwrite)
    if plan.send_to is not None:
        check_target(plan.send_to, overwrite=request.overwrite)
    with ExitStack() as stack:
        lock = stack.enter_context(prepare_output(plan.out, overwrite=request.overwrite))
        if not request.restart:
            plan = keep_threads(plan, read_state_settings(plan.out))
        engine = stack.enter_context(_open_engine(plan, on_message, on_worker_start))
        fingerprint = _bind_to_shard(plan, engine.facts)
        records = list_records(plan, engine.facts)
        with Journal.open(plan.out, fingerprint, restart=request.restart, lock=lock) as journal:
            write_description(plan.out, _describe(plan, engine.facts, records), records)
            yield Run(plan, engine, records, journal, len(find_finished(plan, records, journal)))


@contextmanager
def _open_engine(
    plan: RunPlan, on_message: OnMessage, on_worker_start: Callable[[], object] | None
) -> Iterator[LabelEngine]:
    """Here where one device was asked for, else by a process a device."""
    local_rank = None if plan.request.shard is None else find_local_rank()
    devices = resolve_devices(plan.request.devices, local_rank=local_rank)
    if len(devices) == 1:
        request = replace(plan.request, devices=devices[0])
        yield LocalEngine.open(replace(plan, request=request), on_message=on_message)
        return
    with open_device_engine(
        plan, devices, on_message=on_message, on_worker_start=on_worker_start
    ) as engine:
        yield engine


def _bind_to_shard(plan: RunPlan, facts: RunFacts) -> Fingerprint:
    """A shard's results depend on all images, and on how they are dealt out."""
    shard, fingerprint = plan.request.shard, facts.fingerprint
    if shard is None:
        return fingerprint
    settings: dict[str, JsonValue] = {
        "shard.index": shard.index,
        "shard.count": shard.count,
        "shard.batch_size": facts.batch_size,
        "shard.images": compute_images_hash(plan.records),
    }
    return replace(fingerprint, options={**fingerprint.options, **settings})


def _describe(plan: RunPlan, facts: RunFacts, records: Sequence[ImageRecord]) -> RunDescription:
    return RunDescription(
        categories=facts.categories,
        coco=build_coco_options(plan, facts),
        shard=plan.request.shard,
        num_images=len(records),
        images_sha256=compute_images_hash(records),
    )


def find_finished(
    plan: RunPlan, records: Sequence[ImageRecord], journal: Journal
) -> frozenset[str]:
    """File names of those of a run's images that need no work."""
    done = journal.finished
    if plan.request.retry_failed:
        done -= journal.failed
    return done & {record.file_name for record in records}


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
        DeviceError: no device is left to go on with.
        TooManyFailuresError: more images failed than the request allows; `errors.jsonl` has them.
    """
    started = time.monotonic()
    finished = find_finished(run.plan, run.records, run.journal)
    left = {record.file_name for record in run.records} - finished
    limit = FailureLimit(run.plan.request.max_failures, run.journal.failed & finished)

    def on_result(result: ImageResult) -> None:
        limit.count(result)
        on_image_done(result)

    run.engine.label(
        LabelJob(
            plan=run.plan,
            batches=iter_unfinished(plan_run_batches(run.plan, run.engine.facts), finished),
            left=left,
            journal=run.journal,
            on_result=on_result,
            on_message=on_message,
            should_stop=lambda: should_stop() or limit.is_exceeded,
        )
    )
    run.journal.flush()
    if limit.is_exceeded:
        write_failures(run.plan, run.journal.iter_failed(run.records))
        raise limit.to_error(run.plan.out)
    if should_stop():
        raise KeyboardInterrupt
    summary = _write_results(run, seconds=time.monotonic() - started, num_labelled_now=len(left))
    if run.plan.send_to is not None:
        send_results(run.plan.out, run.plan.send_to)
    return replace(summary, send_to=run.plan.send_to)


def _write_results(run: Run, *, seconds: float, num_labelled_now: int) -> RunSummary:
    """Write the result files, unless they are what they would become."""
    source_hash = compute_source_hash(run.plan, run.records, run.journal)
    before = read_finished(run.plan.out, source_hash)
    if before is not None:
        summary = replace(before, seconds=seconds, num_labelled_now=num_labelled_now)
    else:
        summary = write_run_files(
            run.plan,
            run.engine.facts,
            run.journal.iter_results(run.records),
            seconds=seconds,
            num_labelled_now=num_labelled_now,
        )
    write_finished(summary, source_hash, run.plan, run.engine.facts.weight_paths)
    return summary


def plan_run_batches(plan: RunPlan, facts: RunFacts) -> Iterator[tuple[ImageRecord, ...]]:
    """The batches of a run or shard, the same however often it is stopped and goes on."""
    count = (lambda record: 0) if plan.prompts is None else plan.prompts.count_for
    batches = plan_batches(plan.records, count, batch_size=facts.batch_size)
    return batches if plan.request.shard is None else plan.request.shard.take(batches)


def list_records(plan: RunPlan, facts: RunFacts) -> tuple[ImageRecord, ...]:
    """The images of a run or shard, by image_id."""
    if plan.request.shard is None:
        return plan.records
    own = chain.from_iterable(plan_run_batches(plan, facts))
    return tuple(sorted(own, key=lambda record: record.image_id))
