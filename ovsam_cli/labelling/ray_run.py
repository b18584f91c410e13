"""A run on a Ray cluster, from the plan to complete Parquet parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ovsam_cli.errors import InputError, TooManyFailuresError
from ovsam_cli.labelling.distributed_ray import (
    Work,
    Workers,
    ask_for_facts,
    check_ray,
    choose_workers,
    for_worker,
    iter_labelled,
    open_cluster,
)
from ovsam_cli.labelling.kept_threads import keep_threads
from ovsam_cli.labelling.part_ledger import (
    LEDGER,
    PartJob,
    PartLedger,
    PartStats,
    count_images_per_part,
    cut_parts,
)
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.planner import plan_batches
from ovsam_cli.labelling.run_description import compute_images_hash
from ovsam_cli.labelling.run_facts import RunFacts, build_coco_options
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.outputs.folders import open_folder
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.parquet import SUCCESS_FILE, ParquetHeader, check_pyarrow

ERRORS_NAME, RUN_NAME = f"{LEDGER}/errors.jsonl", f"{LEDGER}/run.json"
PER_PART, BATCH_SIZE = "parts.images_per_part", "parts.batch_size"


@dataclass(frozen=True, slots=True)
class PartsSummary:
    """What a finished run of parts came to.

    Attributes:
        place: path or URL of the folder.
        num_parts, num_images, num_failed, num_objects, num_notices: of the whole run.
        num_labelled_now: images that this start worked on.
        seconds: of this start.
    """

    place: str
    num_parts: int
    num_images: int
    num_failed: int
    num_objects: int
    num_notices: int
    num_labelled_now: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RayRun:
    """An open run of parts.

    Attributes:
        plan: what was asked for and found.
        workers: how the cluster's devices are used.
        facts: what the model says of the run.
        ledger: which parts are complete.
        settings: that hold for it.
        jobs: all parts, without their prompts.
    """

    plan: RunPlan
    workers: Workers
    facts: RunFacts
    ledger: PartLedger
    settings: dict[str, JsonValue]
    jobs: tuple[PartJob, ...]

    @property
    def num_finished(self) -> int:
        """Images of complete parts."""
        done = self.ledger.list_done()
        return sum(job.num_images for job in self.jobs if job.number in done)


@contextmanager
def open_ray_run(plan: RunPlan, *, on_message: Callable[[str], None]) -> Iterator[RayRun]:
    """Connect to the cluster, load the model there once, open the ledger.

    Raises:
        InputError: an option that Ray cannot do, or a folder with something else in it.
        DeviceError: no cluster, or no device.
        OvsamError: the model cannot be loaded there, or the folder not be written.
    """
    _check_request(plan)
    place = plan.request.send_to or plan.request.out.absolute()
    with ExitStack() as stack:
        if isinstance(place, Path):
            stack.enter_context(prepare_output(place, overwrite=True))  # the ledger looks inside
        ledger = PartLedger(open_folder(place))
        if not plan.request.restart:
            plan = keep_threads(plan, ledger.read_settings())
        stack.enter_context(open_cluster(plan.request.address))
        workers = choose_workers(plan.request.devices)
        on_message(f"Ray: {workers.count} x {workers.device}, {workers.num_cpus} cores each")
        facts = ask_for_facts(plan, workers)
        settings = ledger.open(
            _list_settings(plan, facts, workers),
            restart=plan.request.restart,
            overwrite=plan.request.overwrite,
        )
        jobs = _plan_jobs(plan, settings)
        if plan.request.retry_failed:
            for number in ledger.list_done():
                stats = ledger.read_stats(number)
                if stats is None or stats.num_failed:
                    ledger.forget(number)
        yield RayRun(plan, workers, facts, ledger, settings, jobs)


def finish_ray_run(run: RayRun, *, on_part_done: Callable[[PartStats], None]) -> PartsSummary:
    """Label the parts that are left, then sum up.

    Args:
        run: from `open_ray_run`.
        on_part_done: called with each part that was labelled now.

    Raises:
        OvsamError: a part cannot be written, or more images failed than the request allows.
    """
    started = time.monotonic()
    done = run.ledger.list_done()
    left = [_with_prompts(run.plan, job) for job in run.jobs if job.number not in done]
    before = [run.ledger.read_stats(job.number) for job in run.jobs if job.number in done]
    everything = [stats for stats in before if stats is not None]
    num_before = sum(stats.num_images for stats in everything)
    if left:
        for stats in iter_labelled(_build_work(run), run.workers, left):
            everything.append(stats)
            on_part_done(stats)
            _check_failures(run.plan, everything)
    everything.sort(key=lambda stats: stats.number)
    num_images = sum(stats.num_images for stats in everything)
    summary = PartsSummary(
        place=str(run.ledger.folder.location),
        num_parts=len(everything),
        num_images=num_images,
        num_failed=sum(stats.num_failed for stats in everything),
        num_objects=sum(stats.num_objects for stats in everything),
        num_notices=sum(stats.num_notices for stats in everything),
        num_labelled_now=num_images - num_before,
        seconds=time.monotonic() - started,
    )
    if left or SUCCESS_FILE not in run.ledger.folder.list_names():
        _write_end(run, everything, summary)
    return summary


def _check_request(plan: RunPlan) -> None:
    request = plan.request
    if request.shard is not None:
        raise InputError("--engine ray: divides the run itself; leave --shard out")
    if request.options.num_previews != 0:
        raise InputError("--engine ray: writes no previews; leave --previews out")
    check_pyarrow()
    check_ray()


def _list_settings(plan: RunPlan, facts: RunFacts, workers: Workers) -> dict[str, JsonValue]:
    return {
        **facts.fingerprint.settings(),
        "images": compute_images_hash(plan.records),
        PER_PART: count_images_per_part(len(plan.records), workers.count),
        BATCH_SIZE: facts.batch_size,
    }


def _plan_jobs(plan: RunPlan, settings: dict[str, JsonValue]) -> tuple[PartJob, ...]:
    batch_size, per_part = settings[BATCH_SIZE], settings[PER_PART]
    assert isinstance(batch_size, int) and isinstance(per_part, int)
    count = (lambda record: 0) if plan.prompts is None else plan.prompts.count_for
    batches = plan_batches(plan.records, count, batch_size=batch_size)
    return tuple(cut_parts(batches, images_per_part=per_part))


def _with_prompts(plan: RunPlan, job: PartJob) -> PartJob:
    if plan.prompts is None:
        return job
    records = [record for batch in job.batches for record in batch]
    return replace(job, prompts=plan.prompts.take(records))


def _build_work(run: RayRun) -> Work:
    header = ParquetHeader(
        run.facts.categories, build_coco_options(run.plan, run.facts), run.settings
    )
    batch_size = run.settings[BATCH_SIZE]
    assert isinstance(batch_size, int)
    plan = for_worker(run.plan, run.workers, batch_size=batch_size)
    return Work(plan, run.ledger.folder.location, header)


def _check_failures(plan: RunPlan, everything: list[PartStats]) -> None:
    limit = plan.request.max_failures
    num_failed = sum(stats.num_failed for stats in everything)
    if limit is not None and num_failed > limit:
        rows = [row for stats in everything for row in stats.errors if row["level"] == "error"]
        raise TooManyFailuresError(
            f"{num_failed} image(s) failed, more than --max-failures {limit} (the last: "
            f"{rows[-1]['message']}); mend them and go on with --retry-failed, or allow more"
        )


def _write_end(run: RayRun, everything: list[PartStats], summary: PartsSummary) -> None:
    """Errors and settings of the run, and behind them that it is complete."""
    folder = run.ledger.folder
    errors = [json.dumps(row) for stats in everything for row in stats.errors]
    folder.write(ERRORS_NAME, "".join(f"{row}\n" for row in errors).encode())
    record = {
        "settings": run.settings,
        "command": run.plan.request.command,
        "weights": run.facts.weights,
        "device": run.facts.device,
        "workers": run.workers.count,
        "summary": asdict(summary),
    }
    folder.write(RUN_NAME, json.dumps(record, indent=1).encode() + b"\n")
    folder.write(SUCCESS_FILE, b"")
