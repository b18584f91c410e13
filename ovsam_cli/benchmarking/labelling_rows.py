"""Files on disk to files on disk: the reference's order of operations, and `ovsam label`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ovsam_cli.benchmarking.comparison import Comparison, Parity, time_in_turns
from ovsam_cli.benchmarking.plain_run import PlainRunner, compare_answers, read_answers
from ovsam_cli.benchmarking.ready_model import ReadyModel, find_config, write_model
from ovsam_cli.benchmarking.samples import write_box_prompts, write_photos
from ovsam_cli.benchmarking.settings import BenchSettings
from ovsam_cli.labelling.options import GridOptions, LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import RunPlan, plan_run
from ovsam_cli.model.checkpoint import load_model
from ovsam_cli.model.hub import find_local_files

ANNOTATIONS = "annotations.json"
# Lowest share of the same names, lowest mean IoU of the masks.
EXACT, IN_BFLOAT16 = (1.0, 0.9999), (0.995, 0.995)
AMG_POINTS = 64  # a decoder call in SAM's automatic generator


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work.

    Attributes:
        key: of the design's table of targets.
        name: for a reader.
        hw: (height, width) of the photos.
        boxes: an image; None for the automatic grid.
        num_images: a round.
        target: ratio that is aimed at.
        prompts_per_call: of the baseline's decoder; None for all of an image at once.
    """

    key: str
    name: str
    hw: tuple[int, int]
    boxes: int | None
    num_images: int
    target: float | None = None
    prompts_per_call: int | None = None


@dataclass(frozen=True, slots=True)
class Contenders:
    """Both sides with the same weights, and whether these are the published ones."""

    plain: PlainRunner
    ours: ReadyModel
    request: LabelRequest
    are_published: bool


def open_contenders(settings: BenchSettings) -> Contenders:
    """Load weights of the preset twice: as they are, and as `label` does.

    They are random, or the published ones where these are on this machine.
    """
    are_published = settings.preset == "rn50x16" and bool(find_local_files("rn50x16"))
    files = write_model(find_config(settings.preset), settings.scratch / "models")
    photos = write_photos(
        settings.new_folder("any"), count=1, hw=settings.sizes.vga_hw, num_different=1
    )
    request = files.request(photos, settings.scratch / "unused", settings)
    if are_published:
        request = replace(request, model="rn50x16", text_embeddings=None)
    ours = ReadyModel.open(request)
    loaded = load_model(request.model, device=settings.device)
    return Contenders(PlainRunner(loaded.model, ours.labeller), ours, request, are_published)


def plan_work(settings: BenchSettings, request: LabelRequest, work: Work) -> RunPlan:
    """Draw photos and boxes of some work and plan its run."""
    folder = settings.new_folder("photos")
    photos = write_photos(folder, count=work.num_images, hw=work.hw)
    prompts = None
    if work.boxes is not None:
        target = folder.with_name(f"{folder.name}.json")
        prompts = str(write_box_prompts(target, photos, hw=work.hw, boxes_per_image=work.boxes))
    # Random weights have no stable masks: the grid keeps what is distinct.
    grid = GridOptions(points_per_side=settings.sizes.grid_side)
    # No report: the baseline makes none.
    options = LabelOptions(grid=None if prompts else grid, min_stability=0.0, report=False)
    wanted = replace(request, images=(str(photos),), prompts=prompts, options=options)
    return plan_run(wanted)


def label_anew(settings: BenchSettings, model: ReadyModel, plan: RunPlan) -> RunPlan:
    """Run a plan into a new folder; returns the plan with that folder."""
    out = settings.new_folder("out") / "labels"
    plan = replace(plan, request=replace(plan.request, out=out))
    model.label(plan)
    return plan


def compare_labelling(
    settings: BenchSettings, contenders: Contenders, work: Work
) -> list[Comparison]:
    """Time one kind of work both ways, after checking that the answers agree."""
    plan = plan_work(settings, contenders.request, work)
    plain = replace(contenders.plain, prompts_per_call=work.prompts_per_call)
    target = settings.scratch / "plain.json"
    parity, num_answers = _find_parity(settings, contenders, plain, plan)
    baseline, ours = time_in_turns(
        lambda: plain.label(plan, target),
        lambda: label_anew(settings, contenders.ours, plan),
        rounds=settings.rounds,
        clock=settings.clock,
        is_warm=settings.clock == "core",
    )
    dtype = str(contenders.ours.labeller.dtype).removeprefix("torch.")
    return [
        Comparison(
            work.key,
            f"{work.name}, {work.num_images} images a round",
            settings.clock,
            baseline,
            ours,
            parity,
            target=work.target,
            note=f"{'published' if contenders.are_published else 'random'} weights "
            f"({settings.preset}), ours in {dtype}, answers compared in "
            f"{dtype if contenders.are_published else 'float32'}; "
            f"{num_answers / work.num_images:.0f} objects an image come out",
        )
    ]


def _find_parity(
    settings: BenchSettings, contenders: Contenders, plain: PlainRunner, plan: RunPlan
) -> tuple[tuple[Parity, ...], int]:
    """Names and masks of both sides, and how many answers ours gives.

    Random weights are compared in float32: rounding turns their masks, which hardly differ from
    zero, over.
    """
    labeller = contenders.ours.labeller
    if not contenders.are_published:
        labeller = replace(labeller, dtype=torch.float32)
    min_share, min_iou = EXACT if labeller.dtype == torch.float32 else IN_BFLOAT16
    with _without_tf32():
        done = label_anew(settings, replace(contenders.ours, labeller=labeller), plan)
        expected = plain.label(plan, settings.scratch / "plain.json")
    answers = read_answers(done.request.out / ANNOTATIONS)
    found = compare_answers(answers, expected)
    return (
        Parity("answers compared", found.num_matched, 1, higher_is_better=True),
        Parity("answers of ours only", found.num_missing, 0),
        Parity("share of the same names", found.same_names, min_share, higher_is_better=True),
        Parity("mean IoU of the masks", found.mean_iou, min_iou, higher_is_better=True),
    ), len(answers)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Float32 products of full precision on CUDA; rounded ones say nothing of the algorithm."""
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolution
        torch.backends.cuda.matmul.allow_tf32 = product


def list_cpu_work(settings: BenchSettings) -> list[Work]:
    """C1 to C3: one box, several, and the grid at both image sizes."""
    sizes = settings.sizes
    side = sizes.grid_side
    is_full = settings.preset == "rn50x16"
    vga, large = sizes.vga_hw, sizes.large_hw
    grid, large_grid = (f"grid {side} x {side}, {describe(hw)}" for hw in (vga, large))
    return [
        Work("C1", f"1 box, {describe(vga)}", vga, 1, 1, 1.4 if is_full else None),
        Work("C2", f"{sizes.boxes} boxes, {describe(vga)}", vga, sizes.boxes, 1),
        Work("C3", grid, vga, None, 1, None, AMG_POINTS),
        Work("C3-large", large_grid, large, None, 1, None, AMG_POINTS),
    ]


def list_cuda_work(settings: BenchSettings) -> list[Work]:
    """G1 to G5: as on the CPU, more images a round, and the loop over single prompts."""
    sizes = settings.sizes
    count, boxes, side = sizes.images, sizes.boxes, sizes.grid_side
    vga, large = sizes.vga_hw, sizes.large_hw
    grid = f"grid {side} x {side}, {describe(vga)}"
    works = [
        Work("G1", f"1 box, {describe(vga)}", vga, 1, count, 8.0),
        Work("G2", f"{boxes} boxes, {describe(vga)}", vga, boxes, count, 9.0),
        Work("G3", f"{boxes} boxes, {describe(large)}", large, boxes, max(count // 4, 1), 45.0),
        Work("G4", f"{grid}, baseline one by one", vga, None, 1, 500.0, 1),
        Work("G5", f"{grid}, baseline 64 a call", vga, None, 1, 50.0, AMG_POINTS),
    ]
    if settings.has_targets:
        return works
    return [replace(work, target=None) for work in works]


def describe(hw: tuple[int, int]) -> str:
    """`640 x 480`, as sizes of photos are named."""
    return f"{hw[1]} x {hw[0]}"


def compare_cpu_labelling(settings: BenchSettings, *, key: str) -> list[Comparison]:
    """C1, C2, C3 or C3-large: with the published sizes each takes long, so they are apart."""
    return _compare_all(settings, [work for work in list_cpu_work(settings) if work.key == key])


def compare_cuda_labelling(settings: BenchSettings) -> list[Comparison]:
    """G1 to G5."""
    return _compare_all(settings, list_cuda_work(settings))


def _compare_all(settings: BenchSettings, works: Sequence[Work]) -> list[Comparison]:
    contenders = open_contenders(settings)
    return [row for work in works for row in compare_labelling(settings, contenders, work)]
