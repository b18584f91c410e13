"""Compute the teacher's features of many images once, before SAM2CLIP reads them every epoch.

What is in the cache already is left out, so a stopped run goes on. Several processes share the
work by position: process r of W takes every W-th image from the r-th.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ovsam_cli.errors import DeviceError, InputError, OutputError
from ovsam_cli.model.sam_encoder import SamEncoder
from ovsam_cli.training.teacher import Precision, Teacher, encode_with_teacher
from ovsam_cli.training.teacher_cache import (
    TEMPORARY_NAME,
    TeacherIdentity,
    read_shard_index,
    write_positions,
    write_shard,
)
from ovsam_cli.training.teacher_images import ReadImage, TeacherImages, iter_read_batches

SKIPPED_NAME = "skipped.jsonl"
BYTES_A_VALUE = 2  # float16
SPARE_SHARE = 0.01  # of the estimate, for file headers
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """How the features are computed and stored.

    Attributes:
        out: the cache folder.
        checkpoint: SAM's file.
        precision: of the computation; features are stored in float16.
        batch_size: images a step.
        shard_size: images a file; this many features wait in memory.
        shard_seconds: a file is written at the latest after this time.
        num_threads: that read and resize images.
    """

    out: Path
    checkpoint: Path
    precision: Precision = "float32"
    batch_size: int = 1
    shard_size: int = 128
    shard_seconds: float = 300.0
    num_threads: int = 4


@dataclass(frozen=True, slots=True)
class CacheEstimate:
    """What a run will need, before it starts.

    Attributes:
        num_images: of the whole set.
        num_left: of those without features yet.
        bytes_needed: for these.
        bytes_free: on the disk of the cache.
    """

    num_images: int
    num_left: int
    bytes_needed: int
    bytes_free: int

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"{self.num_images:,} images, {self.num_images - self.num_left:,} of them cached; the "
            f"others need {_describe_size(self.bytes_needed)}, "
            f"{_describe_size(self.bytes_free)} are free"
        )


@dataclass(frozen=True, slots=True, eq=False)
class EncodingPlan:
    """What is to be done, checked.

    Attributes:
        options: of the run.
        identity: of the teacher.
        images: all of them.
        left: positions of those without features.
        estimate: of disk space.
    """

    options: EncodingOptions
    identity: TeacherIdentity
    images: TeacherImages
    left: NDArray[np.int64]
    estimate: CacheEstimate

    def take_part(self, part: int, num_parts: int) -> TeacherImages:
        """The images of one process of several, by their positions among all images.

        Not among those that are left: a rank that starts late finds fewer of them.
        """
        return self.images.select(self.left[self.left % num_parts == part])


def plan_encoding(
    images: TeacherImages,
    teacher: Teacher,
    options: EncodingOptions,
    on_message: Callable[[str], None] | None = None,
) -> EncodingPlan:
    """Look what is cached, remove torn files, and refuse what cannot fit on the disk.

    Raises:
        InputError: the folder holds features of another teacher.
        OutputError: the folder cannot be made, or its disk is too small.
    """
    identity = TeacherIdentity(teacher.name, teacher.weights_sha256, options.precision)
    index = read_shard_index(options.out)
    if index.identity is not None and index.identity != identity:
        raise InputError(
            f"{options.out}: holds features of {index.identity.describe()}, asked for "
            f"{identity.describe()}; give another folder"
        )
    left = np.flatnonzero(~index.find(images.keys)).astype(np.int64)
    num_bytes = len(left) * math.prod(teacher.embedding_shape) * BYTES_A_VALUE
    estimate = CacheEstimate(
        num_images=len(images),
        num_left=len(left),
        bytes_needed=int(num_bytes * (1 + SPARE_SHARE)),
        bytes_free=_find_free_bytes(options.out),
    )
    if estimate.bytes_needed > estimate.bytes_free:
        raise OutputError(
            f"{options.out}: {estimate.describe()}; give a folder on a larger disk or fewer images"
        )
    for path in index.torn:
        if on_message is not None:
            on_message(f"{path}: torn; its images are computed again")
        path.unlink(missing_ok=True)
    return EncodingPlan(options, identity, images, left, estimate)


def encode_part(
    plan: EncodingPlan,
    teacher: Teacher,
    device: torch.device,
    *,
    part: int = 0,
    num_parts: int = 1,
    on_image_done: Callable[[bool], None] | None = None,
) -> None:
    """Compute and store features of this process's images; if stopped, the ready ones first.

    Args:
        plan: from `plan_encoding`.
        teacher: on the CPU; it is moved.
        device: to compute on.
        part, num_parts: which process of how many this is.
        on_image_done: told for each image whether it got features.

    Raises:
        OutputError: the disk is full.
        DeviceError: the device's memory is too small for the batch.
    """
    options = plan.options
    _make_folder(options.out)
    (options.out / TEMPORARY_NAME.format(part=part)).unlink(missing_ok=True)
    if part == 0:
        write_positions(options.out, teacher.encoder.pos_embed, plan.identity)
    encoder = teacher.encoder.to(device)
    report = on_image_done or (lambda has_features: None)
    features: dict[str, Tensor] = {}
    last_written = time.monotonic()
    try:
        for batch in iter_read_batches(
            plan.take_part(part, num_parts),
            teacher.model_size,
            batch_size=options.batch_size,
            num_threads=options.num_threads,
        ):
            _record_skipped(options.out, [read for read in batch if read.pixels is None])
            readable = [read for read in batch if read.pixels is not None]
            found = _encode(encoder, readable, device, options)
            _record_skipped(
                options.out,
                [
                    ReadImage(read.image, None, "the teacher's features are not finite")
                    for read in readable
                    if read.image.key not in found
                ],
            )
            features |= found
            for read in batch:
                report(read.image.key in found)
            is_late = time.monotonic() - last_written > options.shard_seconds
            if len(features) >= options.shard_size or (features and is_late):
                ready, features = features, {}
                write_shard(options.out, ready, plan.identity, part)
                last_written = time.monotonic()
    finally:
        if features:
            write_shard(options.out, features, plan.identity, part)


def _encode(
    encoder: SamEncoder, reads: list[ReadImage], device: torch.device, options: EncodingOptions
) -> dict[str, Tensor]:
    """Image key -> float16 features, of those images where they are finite."""
    if not reads:
        return {}
    pixels = torch.stack([read.pixels for read in reads if read.pixels is not None])
    try:
        embeddings = encode_with_teacher(encoder, pixels.to(device), options.precision)
        stored = embeddings.half().cpu()
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{device}: out of memory with {len(reads)} images a step; give a smaller --batch"
        ) from error
    # A copy each: a view would keep the memory of its whole batch.
    return {
        read.image.key: one.clone(memory_format=torch.contiguous_format)
        for read, one in zip(reads, stored, strict=True)
        if bool(one.isfinite().all())
    }


def _record_skipped(folder: Path, reads: list[ReadImage]) -> None:
    """Add lines for images that are not in the file yet; processes may append at once."""
    if not reads:
        return
    path = folder / SKIPPED_NAME
    try:
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        with path.open("a", encoding="utf-8") as file:
            for read in reads:
                line = json.dumps({"path": str(read.image.path), "reason": read.reason})
                if line not in known:
                    file.write(line + "\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make the folder: {error.strerror}") from error


def _find_free_bytes(folder: Path) -> int:
    """On the disk where the folder is or will be."""
    present = next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()
    )
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise OutputError(f"{folder}: {present} is no folder that can be written to")
    return shutil.disk_usage(present).free


def _describe_size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.1f} MiB"
