"""One process a device for the teacher's features, or one rank of a `torchrun`."""

from __future__ import annotations

import queue
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue

import torch
import torch.multiprocessing

from ovsam_cli.errors import DeviceError, InputError, OvsamError
from ovsam_cli.training.distributed import find_ranks
from ovsam_cli.training.teacher import load_teacher
from ovsam_cli.training.teacher_encoding import (
    CacheEstimate,
    EncodingOptions,
    EncodingPlan,
    encode_part,
    plan_encoding,
)
from ovsam_cli.training.teacher_images import TeacherImages

POLL_SECONDS = 0.5
# What a child sends: whether an image got features, an error, or None at its end.
Report = bool | OvsamError | None


@dataclass(frozen=True, slots=True)
class EncodingSummary:
    """What a run did.

    Attributes:
        estimate: of its start.
        num_encoded: images that got features now.
        num_skipped: images that could not be read, see skipped.jsonl.
    """

    estimate: CacheEstimate
    num_encoded: int
    num_skipped: int


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told: about the plan, about each image (whether it got features), and in words."""

    on_plan: Callable[[CacheEstimate], None]
    on_image_done: Callable[[bool], None]
    on_message: Callable[[str], None]


def cache_teacher(
    images: TeacherImages,
    options: EncodingOptions,
    devices: Sequence[str],
    callbacks: Callbacks,
    *,
    teacher_name: str | None = None,
) -> EncodingSummary:
    """Compute the features of all images that have none, on all devices.

    Under `torchrun` each rank takes its part on its own device; otherwise there is a process for
    each of several devices.

    Args:
        images: all of them.
        options: of the run.
        devices: torch's names, from `parse_devices`.
        callbacks: who is told.
        teacher_name: refuse a checkpoint of another size than this.

    Raises:
        CheckpointError: no SAM encoder in the checkpoint.
        InputError: the cache is of another teacher.
        OutputError: the features do not fit on the disk, or it cannot be written.
        DeviceError: out of memory, or a process died.
    """
    teacher = load_teacher(options.checkpoint, teacher_name, on_message=callbacks.on_message)
    plan = plan_encoding(images, teacher, options, callbacks.on_message)
    callbacks.on_plan(plan.estimate)
    counts = [0, 0]

    def on_image_done(has_features: bool) -> None:
        counts[has_features] += 1
        callbacks.on_image_done(has_features)

    ranks = find_ranks()
    if not len(plan.left):
        pass
    elif ranks.world_size > 1 or len(devices) == 1:
        device = torch.device(devices[ranks.local_rank % len(devices)])
        encode_part(
            plan,
            teacher,
            device,
            part=ranks.rank,
            num_parts=ranks.world_size,
            on_image_done=on_image_done,
        )
    else:
        del teacher  # the children read their own
        _encode_in_processes(plan, devices, on_image_done)
    return EncodingSummary(plan.estimate, num_encoded=counts[True], num_skipped=counts[False])


def parse_devices(text: str) -> tuple[str, ...]:
    """`auto` (every GPU, else the CPU), `cpu`, or numbers of GPUs with commas between.

    Raises:
        InputError: something else, or a GPU that is not there.
    """
    num_gpus = torch.cuda.device_count()
    if text == "auto":
        return tuple(f"cuda:{number}" for number in range(num_gpus)) or ("cpu",)
    names = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(?:(cpu)|(?:cuda:)?(\d+))\s*", part)
        if match is None:
            raise InputError(f"--device {text!r}: expected auto, cpu, or GPU numbers such as 0,1")
        if match[2] is not None and int(match[2]) >= num_gpus:
            raise InputError(f"--device {text!r}: GPU {match[2]} is not there; found {num_gpus}")
        names.append(match[1] or f"cuda:{match[2]}")
    return tuple(names)


def _encode_in_processes(
    plan: EncodingPlan, devices: Sequence[str], on_image_done: Callable[[bool], None]
) -> None:
    context = torch.multiprocessing.get_context("spawn")
    reports: Queue[tuple[int, Report]] = context.Queue()
    children: list[BaseProcess] = [
        context.Process(
            target=_run_child, args=(plan, device, part, len(devices), reports), daemon=True
        )
        for part, device in enumerate(devices)
    ]
    for child in children:
        child.start()
    try:
        _follow(children, devices, reports, on_image_done)
    except BaseException:
        for child in children:
            child.terminate()
        raise
    finally:
        for child in children:
            child.join()


def _follow(
    children: Sequence[BaseProcess],
    devices: Sequence[str],
    reports: Queue[tuple[int, Report]],
    on_image_done: Callable[[bool], None],
) -> None:
    """Pass reports on until every child has said that it is done."""
    running = set(range(len(children)))
    while running:
        try:
            part, report = reports.get(timeout=POLL_SECONDS)
        except queue.Empty:
            dead = [part for part in running if children[part].exitcode is not None]
            if dead and reports.empty():
                raise DeviceError(
                    f"{devices[dead[0]]}: its process ended with code "
                    f"{children[dead[0]].exitcode}; run the same command again to go on"
                ) from None
            continue
        if isinstance(report, OvsamError):
            raise report
        if report is None:
            running.discard(part)
        else:
            on_image_done(report)


def _run_child(
    plan: EncodingPlan,
    device: str,
    part: int,
    num_parts: int,
    reports: Queue[tuple[int, Report]],
) -> None:
    """One process: its part of the images on its device."""
    # Stopped in the same orderly way as by Ctrl-C, so that ready features are written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        encode_part(
            plan,
            load_teacher(plan.options.checkpoint),
            torch.device(device),
            part=part,
            num_parts=num_parts,
            on_image_done=lambda has_features: reports.put((part, has_features)),
        )
        reports.put((part, None))
    except KeyboardInterrupt:
        reports.cancel_join_thread()  # the parent tells of the stop and reads no more
    except OvsamError as error:
        reports.put((part, error))
