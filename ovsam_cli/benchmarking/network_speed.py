"""The network alone and whole runs: share of the time (G10), use of a GPU (G8), prompts (G9)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ovsam_cli.benchmarking.comparison import Parity, measure_seconds
from ovsam_cli.benchmarking.grid_filter import make_geometry
from ovsam_cli.benchmarking.labelling_rows import (
    ANNOTATIONS,
    Work,
    describe,
    label_anew,
    open_contenders,
    plan_work,
)
from ovsam_cli.benchmarking.measurement import Measurement, Row
from ovsam_cli.benchmarking.plain_run import read_answers
from ovsam_cli.benchmarking.ready_model import VOCABULARY, ReadyModel
from ovsam_cli.benchmarking.samples import draw_boxes, draw_photo, make_box_prompts, write_photos
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings
from ovsam_cli.images import preprocess
from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.stages import Labeller, classify, decode, encode
from ovsam_cli.structures import Prompts

TINY_HW = (384, 512)


def measure_tiny(settings: BenchSettings) -> list[Row]:
    """The bundled model, files to files, a box an image of 512 px, and the network's share."""
    model, request = _open_tiny(settings)
    work = Work("", f"tiny, 1 box, {describe(TINY_HW)}", TINY_HW, 1, settings.sizes.images)
    return measure_pipeline(settings, model, request, work)


def _open_tiny(settings: BenchSettings) -> tuple[ReadyModel, LabelRequest]:
    photos = write_photos(settings.new_folder("any"), count=1, hw=TINY_HW, num_different=1)
    request = LabelRequest(
        images=(str(photos),),
        vocabulary=VOCABULARY,
        out=settings.scratch / "unused",
        model="tiny",
        devices=str(settings.device),
    )
    return ReadyModel.open(request), request


def measure_pipeline(
    settings: BenchSettings, model: ReadyModel, request: LabelRequest, work: Work
) -> list[Row]:
    """Images a second from files to files, and what the network alone needs of that time.

    On a CPU core seconds are compared, on a GPU wall seconds.
    """
    plan = plan_work(settings, request, work)
    network = prepare_network(model.labeller, work)
    network()
    done = label_anew(settings, model, plan)
    rounds = [
        (
            measure_seconds(network, settings.clock),
            measure_seconds(lambda: label_anew(settings, model, plan), settings.clock),
            measure_seconds(lambda: label_anew(settings, model, plan), "wall"),
        )
        for _ in range(settings.rounds)
    ]
    return _describe_pipeline(settings, work, rounds, (_check_images(done, work),))


def _describe_pipeline(
    settings: BenchSettings,
    work: Work,
    rounds: Sequence[tuple[float, float, float]],
    checks: tuple[Parity, ...],
) -> list[Row]:
    """The rows of seconds for the network, for the whole run, and for it by the wall clock."""
    count, is_cuda = work.num_images, settings.device.type == "cuda"
    name = f"{work.name}, {count} images a round"
    return [
        Measurement(
            "",
            f"{name}: files to files",
            "images/s",
            tuple(count / wall for _, _, wall in rounds),
            checks,
            higher_is_better=True,
            note="wall time, weights loaded before",
        ),
        Measurement(
            work.key,
            f"{name}: the network alone / files to files",
            "",
            tuple(network / whole for network, whole, _ in rounds),
            checks,
            target=work.target,
            higher_is_better=True,
            note="wall time" if is_cuda else "core time of all threads",
        ),
    ]


def _check_images(plan: RunPlan, work: Work) -> Parity:
    """Every image has an answer; otherwise less was done than the row says."""
    answers = read_answers(plan.request.out / ANNOTATIONS)
    answered = {file_name for file_name, _ in answers}
    return Parity("images without an answer", work.num_images - len(answered), 0)


def prepare_network(labeller: Labeller, work: Work) -> Callable[[], None]:
    """The network on as many images as a round of `work` has, in batches, inputs ready."""
    batch_size = min(labeller.work_sizes().images, work.num_images)
    wanted = labeller.pixel_format
    pixels, geometry = preprocess(
        draw_photo(work.hw, seed=0),
        model_size=wanted.model_size,
        mean=wanted.mean,
        std=wanted.std,
    )
    frames = torch.from_numpy(np.stack([pixels] * batch_size)).to(labeller.device)
    boxes = make_box_prompts(draw_boxes(work.hw, count=work.boxes or 1, seed=0))
    prompts = Prompts.concatenate([boxes.with_image_index(one) for one in range(batch_size)])
    geometries = [geometry] * batch_size
    model_prompts = to_model_prompts(prompts, geometries, device=labeller.device)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(-(-work.num_images // batch_size)):
            features = encode(labeller, frames, geometries)
            decoded = decode(labeller, features, model_prompts)
            classify(labeller, features, decoded.mask_logits, model_prompts)

    return run


def measure_cuda_pipeline(settings: BenchSettings) -> list[Row]:
    """G10: whole runs keep the GPU busy, at both image sizes."""
    contenders = open_contenders(settings)
    sizes, rows = settings.sizes, list[Row]()
    for hw, count, target in (
        (sizes.vga_hw, sizes.images * 4, 0.95),
        (sizes.large_hw, sizes.images, 0.9),
    ):
        goal = target if settings.has_targets else None
        work = Work("G10", f"1 box, {describe(hw)}", hw, 1, count, goal)
        rows += measure_pipeline(settings, contenders.ours, contenders.request, work)
    return rows


def measure_efficiency(settings: BenchSettings) -> list[Row]:
    """G8: the encoder's operations a second over those of a large matrix product."""
    labeller = open_contenders(settings).ours.labeller
    batch_size, side = labeller.work_sizes().images, labeller.pixel_format.model_size
    frames = torch.zeros((batch_size, 3, side, side), device=labeller.device)
    geometries = [make_geometry((side, side), side)] * batch_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encode(labeller, frames, geometries)
    matmul_side = 256 if settings.sizes == MINIMAL else 8192
    left = torch.randn(matmul_side, matmul_side, device=labeller.device, dtype=labeller.dtype)

    def multiply() -> None:
        for _ in range(8):
            left @ left

    @torch.inference_mode()
    def run() -> None:
        encode(labeller, frames, geometries)

    multiply()
    with torch.inference_mode():
        features = encode(labeller, frames, geometries).image_embeddings
    num_strange = int((~torch.isfinite(features)).sum())
    rounds = [
        (measure_seconds(multiply, settings.clock), measure_seconds(run, settings.clock))
        for _ in range(settings.rounds)
    ]
    peaks = [8 * 2 * matmul_side**3 / seconds for seconds, _ in rounds]
    rates = [counter.get_total_flops() / seconds for _, seconds in rounds]
    return [
        Measurement(
            "G8",
            f"encoder, {batch_size} images: operations a second / matrix product's",
            "",
            tuple(rate / peak for rate, peak in zip(rates, peaks, strict=True)),
            (Parity("features that are no numbers", num_strange, 0),),
            target=0.6 if settings.has_targets else None,
            higher_is_better=True,
            note=f"{labeller.dtype}, encoder {statistics.median(rates) / 1e12:.3g} TFLOP/s; product"
            f" of side {matmul_side} {statistics.median(peaks) / 1e12:.3g} TFLOP/s",
        )
    ]


def measure_scaling(settings: BenchSettings) -> list[Row]:
    """G9: how much longer many prompts take than one, files to files."""
    contenders = open_contenders(settings)
    return _compare_counts(settings, contenders.ours, contenders.request, settings.preset)


def measure_tiny_scaling(settings: BenchSettings) -> list[Row]:
    """G9 of the bundled model."""
    model, request = _open_tiny(settings)
    return _compare_counts(replace(settings, preset="small"), model, request, "tiny")


def _compare_counts(
    settings: BenchSettings, model: ReadyModel, request: LabelRequest, name: str
) -> list[Row]:
    """One box, many boxes and the grid in turns, with the model of this name."""
    sizes, is_cuda = settings.sizes, settings.device.type == "cuda"
    hw, many = sizes.vga_hw, min(100, sizes.grid_side**2)
    count = sizes.images if is_cuda else 1
    works = [Work("G9", f"{boxes or 'grid'}", hw, boxes, count) for boxes in (1, many, None)]
    runs = [
        partial(label_anew, settings, model, plan_work(settings, request, work)) for work in works
    ]
    checks = [_check_images(run(), work) for run, work in zip(runs, works, strict=True)]
    rounds = [
        [measure_seconds(run, settings.clock) for run in runs] for _ in range(settings.rounds)
    ]
    whats = [f"{many} boxes / 1 box", f"grid {sizes.grid_side} x {sizes.grid_side} / 1 box"]
    targets = [1.15, 2.5] if settings.has_targets else [None, None]
    return [
        Measurement(
            "G9",
            f"{name}: {what}, {describe(hw)}",
            "x",
            tuple(times[place] / times[0] for times in rounds),
            (checks[0], checks[place]),
            target=target,
            note=f"whole runs of {count} image(s); 1 box takes "
            f"{statistics.median(times[0] for times in rounds):.3g} s ({settings.clock})",
        )
        for place, (what, target) in enumerate(zip(whats, targets, strict=True), start=1)
    ]
