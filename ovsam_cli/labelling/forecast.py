"""What a run would do and take, for `--dry-run`: counted, and estimated from what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.device import list_devices
from ovsam_cli.labelling.device_engine import find_local_rank, resolve_devices
from ovsam_cli.labelling.journal_index import MANIFEST_FILE, read_run
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.planner import iter_unfinished, plan_batches
from ovsam_cli.labelling.run_folder import STATE_FOLDER
from ovsam_cli.labelling.stages import CUDA_IMAGES


@dataclass(frozen=True, slots=True)
class MeasuredCosts:
    """What labelling took where it was measured, in core seconds.

    Attributes:
        start: loading program, weights and names.
        image, prompt: an image with one box; each box more.
        point: of a grid, with the sorting out of its masks.
        memory_gib: peak of the process.
        source: file of the measurement.
    """

    start: float
    image: float
    prompt: float
    point: float
    memory_gib: float
    source: str


# By model and kind of device. What was not measured has no line, and so no estimate.
MEASURED = {
    ("tiny", "cpu"): MeasuredCosts(
        start=7.18,
        image=0.211,
        prompt=0.0165,
        point=0.0394,
        memory_gib=1.23,
        source="benchmarks/results/label-costs-2026-11-22.json",
    ),
}


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run before it is begun.

    Attributes:
        num_images, num_prompts: of the run or shard; prompts of a grid are its points.
        num_finished: images that the folder's run has done; other settings are not looked for.
        num_batches: that are left.
        batch_size: images a step.
        devices: names, one process each.
        core_seconds: of the processor for what is left; None where nothing was measured.
        memory_gib: of the process; None likewise.
        source: where both come from, or why there are none.
        notices: what stands in the way on this machine.
    """

    num_images: int
    num_prompts: int
    num_finished: int
    num_batches: int
    batch_size: int
    devices: tuple[str, ...]
    core_seconds: float | None
    memory_gib: float | None
    source: str
    notices: tuple[str, ...]

    def describe(self) -> str:
        """A few lines for a person."""
        left = self.num_images - self.num_finished
        done = f"{self.num_finished:,} finished already, " if self.num_finished else ""
        lines = [
            f"{done}{left:,} images to label, {self.num_prompts:,} prompts or points in all",
            f"{self.num_batches:,} steps of up to {self.batch_size} images on "
            f"{', '.join(self.devices)}",
        ]
        if self.core_seconds is None or self.memory_gib is None:
            return "\n".join([*lines, f"no estimate of time and memory: {self.source}"])
        return "\n".join(
            [
                *lines,
                f"estimate: {_describe_seconds(self.core_seconds)} of processor time over all "
                f"cores, {self.memory_gib:.1f} GiB of memory (from {self.source})",
            ]
        )


def make_forecast(plan: RunPlan) -> Forecast:
    """Count a run's steps and estimate what they take; no weight is loaded, nothing written.

    Raises:
        InputError: a file of the folder's run cannot be read.
    """
    request, options = plan.request, plan.request.options
    devices, notices = _find_devices(request)
    kind = devices[0].partition(":")[0]
    batch_size = options.batch_size or (CUDA_IMAGES if kind == "cuda" else 1)
    count = (lambda record: 0) if plan.prompts is None else plan.prompts.count_for
    batches = plan_batches(plan.records, count, batch_size=batch_size)
    own = list(batches if request.shard is None else request.shard.take(batches))
    names = frozenset(record.file_name for batch in own for record in batch)
    finished = _find_finished(plan) & names
    left = list(iter_unfinished(own, finished))
    num_left = sum(len(batch) for batch in left)
    share = len(names) / len(plan.records)
    costs = MEASURED.get((request.model, kind))
    source = f"{request.model} on {kind} was not measured" if costs is None else costs.source
    return Forecast(
        num_images=len(names),
        num_prompts=round(plan.num_prompts * share),
        num_finished=len(finished),
        num_batches=len(left),
        batch_size=batch_size,
        devices=devices,
        core_seconds=None if costs is None else _estimate_seconds(plan, costs, num_left),
        memory_gib=None if costs is None else costs.memory_gib,
        source=source,
        notices=notices,
    )


def _find_devices(request: LabelRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The devices of a run, and what speaks against them on this machine."""
    rank = None if request.shard is None else find_local_rank()
    try:
        names = resolve_devices(request.devices, local_rank=rank)
        return tuple(list_devices()[0] if name == "auto" else name for name in names), ()
    except InputError as error:  # planned here for another machine
        return (request.devices,), (f"{error} (the plan is made all the same)",)


def _find_finished(plan: RunPlan) -> frozenset[str]:
    """Images with a row in the run's folder, as `find_finished` of a run counts them."""
    if plan.request.restart or not (plan.out / STATE_FOLDER / MANIFEST_FILE).is_file():
        return frozenset()
    index = read_run(plan.out)
    done = index.file_names()
    return done - index.file_names("failed") if plan.request.retry_failed else done


def _estimate_seconds(plan: RunPlan, costs: MeasuredCosts, num_left: int) -> float:
    """Core seconds of the images that are left, as an average image of the run costs."""
    share = num_left / len(plan.records)
    each = costs.point if plan.prompts is None else costs.prompt
    return costs.start + share * (plan.num_views * costs.image + plan.num_prompts * each)


def _describe_seconds(seconds: float) -> str:
    """About how long, in the unit that a person would choose."""
    for name, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
