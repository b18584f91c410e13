"""Decode threads: images of planned batches are read ahead into the slots that are free."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ovsam_cli.labelling.machine import count_cores
from ovsam_cli.labelling.planner import PreparedImage, ReadOptions, prepare_image
from ovsam_cli.labelling.upload import PixelSlots
from ovsam_cli.structures import ImageRecord, ImageResult

# Images kept at their own size (for crops and previews) may pile up to this before reading waits.
MAX_BYTES_AHEAD = 256 << 20


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """A planned batch, read.

    Attributes:
        images: those that could be read, in the batch's order.
        failed: results of the others.
        slots: where the images lie, to be given back by `PixelSlots.upload`.
    """

    images: tuple[PreparedImage, ...]
    failed: tuple[ImageResult, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    futures: tuple[Future[PreparedImage | ImageResult], ...]
    slots: tuple[int, ...]

    def num_bytes(self) -> int:
        """Of images at their own size, as far as they are read."""
        done = [f.result() for f in self.futures if f.done() and f.exception() is None]
        return sum(
            image.rgb.nbytes
            for image in done
            if isinstance(image, PreparedImage) and image.rgb is not None
        )


def count_readers(device: torch.device, num_cores: int | None = None) -> int:
    """Decode threads: on the CPU the network needs the cores, on CUDA almost nothing does.

    Args:
        device: of the network.
        num_cores: for this process's threads; None is all it may use.
    """
    num_cores = num_cores or count_cores()
    return max(1, num_cores // 4 if device.type == "cpu" else num_cores - 3)


def iter_read(
    batches: Iterable[tuple[ImageRecord, ...]],
    options: ReadOptions,
    slots: PixelSlots,
    *,
    num_readers: int,
) -> Generator[ReadBatch]:
    """Read planned batches ahead, as many as slots and memory allow; in order.

    An empty batch means that there is none at the moment: what was read goes on, then `batches` is
    asked again.

    A batch's slots are taken before any of its images is read, in the order of the batches; so no
    batch can wait for slots that later ones hold.

    Args:
        batches: at most as many images each as there are slots.
        options, num_readers: how to read, in how many threads.
        slots: the consumer gives them back with `upload`.
    """
    waiting: deque[_Waiting] = deque()
    upcoming = iter(batches)
    batch = next(upcoming, None)
    readers = ThreadPoolExecutor(num_readers, thread_name_prefix="read")
    try:
        while batch is not None or waiting:
            if batch == ():
                batch = next(upcoming, None)
            while batch and sum(w.num_bytes() for w in waiting) < MAX_BYTES_AHEAD:
                taken = slots.take(len(batch))
                if taken is None:
                    break
                futures = tuple(
                    readers.submit(prepare_image, record, options, buffer=slots.buffer(slot))
                    for record, slot in zip(batch, taken, strict=True)
                )
                waiting.append(_Waiting(futures, taken))
                batch = next(upcoming, None)
            if not waiting:
                if batch:
                    slots.wait()
                continue
            oldest = waiting.popleft()
            yield _sort_out([future.result() for future in oldest.futures], oldest.slots)
    finally:  # a run that was stopped must not read on
        readers.shutdown(wait=True, cancel_futures=True)


def _sort_out(found: list[PreparedImage | ImageResult], slots: tuple[int, ...]) -> ReadBatch:
    return ReadBatch(
        images=tuple(image for image in found if isinstance(image, PreparedImage)),
        failed=tuple(result for result in found if isinstance(result, ImageResult)),
        slots=slots,
    )
