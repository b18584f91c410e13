"""All stages in order, from planned batches to written results.

    planned batches ─► decode threads ─► slots ─► the device ─► finishing threads ─► writer
    planner.py         reading.py        upload.py  device_batch.py  finishing.py    hand_over.py
                                                    grid_batch.py

The device's thread is the caller's, so that Ctrl-C reaches the network between two operations and
not only between two batches. What waits between stages is bounded: images by the slots, logits by
bytes, results by the batches under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ovsam_cli.errors import ImageError
from ovsam_cli.labelling.device_batch import ChunkOutput, iter_batch_outputs
from ovsam_cli.labelling.finishing import FinishedPart, finish_chunk, join_image, to_result
from ovsam_cli.labelling.grid_batch import iter_grid_outputs
from ovsam_cli.labelling.hand_over import HandOver, choose_max_bytes, count_finishers
from ovsam_cli.labelling.planner import ImageBatch, PreparedImage, ReadOptions
from ovsam_cli.labelling.reading import count_readers, iter_read
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.labelling.upload import PixelSlots
from ovsam_cli.labelling.work_sizes import WorkSizes, free_device_memory, is_out_of_memory
from ovsam_cli.structures import Detections, ImageRecord, ImageResult

# Batches whose images are read, or being read, while one is on the device.
BATCHES_AHEAD = 2
Parts = list[Future[list[FinishedPart]]]  # one a chunk of prompts


@dataclass(frozen=True, slots=True)
class Placed:
    """Images whose pixels are on the device, (h, w, 3) uint8 each."""

    images: tuple[PreparedImage, ...]
    uploaded: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: slice) -> Placed:
        """Some of the images."""
        return Placed(self.images[rows], self.uploaded[rows])


@torch.inference_mode()
def label_batches(
    labeller: Labeller,
    batches: Iterable[tuple[ImageRecord, ...]],
    options: ReadOptions,
    *,
    finish: Callable[[PreparedImage, ImageResult], None],
    write: Callable[[ImageResult], None],
    on_message: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
    num_cores: int | None = None,
) -> None:
    """Label planned batches of images.

    Args:
        labeller: model, names and options.
        batches: of at most the batch size, in the order to work in; empty ones are passed over.
        options: how images are read.
        finish: called with each image and its result in a finishing thread, before `write`.
        write: called with each result, in one thread, batch by batch.
        on_message: called once if memory runs out.
        should_stop: asked before each batch; once it says so no further one is begun, and those
            in flight are finished and written.
        num_cores: for this process's threads, where others work beside it; None is all.

    Raises:
        The first error of any stage; results before it are written.
    """
    sizes = labeller.work_sizes(on_message)
    num_readers = count_readers(labeller.device, num_cores)
    slots = _make_slots(labeller, sizes.images, num_readers)
    kind = labeller.device.type
    with (
        closing(iter_read(batches, options, slots, num_readers=num_readers)) as read,
        HandOver(
            write, num_threads=count_finishers(kind), max_bytes=choose_max_bytes(kind)
        ) as hand_over,
    ):
        for batch in read:
            if should_stop():
                break
            uploaded = slots.upload([image.input_rgb for image in batch.images], batch.slots)
            if batch.failed:
                hand_over.promise(partial(tuple, batch.failed))
            todo = Placed(batch.images, tuple(uploaded))
            for images, parts in _iter_labelled(labeller, todo, sizes, hand_over):
                hand_over.promise(
                    partial(_make_results, labeller, images, parts, finish),
                    sum(image.rgb.nbytes for image in images if image.rgb is not None),
                )
                del images, parts  # or they would wait for the next images to be labelled


def _make_slots(labeller: Labeller, num_images: int, num_readers: int) -> PixelSlots:
    """Places for the batches that are on the device or ahead, and for every reader one more."""
    return PixelSlots(
        num_images * (1 + BATCHES_AHEAD) + num_readers,
        model_size=labeller.pixel_format.model_size,
        device=labeller.device,
    )


def _iter_labelled(
    labeller: Labeller, todo: Placed, sizes: WorkSizes, hand_over: HandOver
) -> Iterator[tuple[tuple[PreparedImage, ...], Parts | ImageError]]:
    """Label images as many at once as memory allows; images with the futures of their parts."""
    start = 0
    while start < len(todo):
        step = todo.take(slice(start, start + sizes.images))
        parts = _try_step(labeller, step, sizes, hand_over)
        if parts is not None:
            yield step.images, parts
            del parts
        elif sizes.shrink_images(len(step)):
            continue
        else:
            message = f"{step.images[0].record.path}: not enough memory on {labeller.device}"
            yield step.images, ImageError(message, reason="out_of_memory")
        start += len(step)


def _try_step(
    labeller: Labeller, step: Placed, sizes: WorkSizes, hand_over: HandOver
) -> Parts | None:
    """Queue a step on the device and its chunks for finishing; None where memory ran out."""
    try:
        return [
            hand_over.submit(partial(finish_chunk, labeller, output), output.num_bytes)
            for output in _iter_outputs(labeller, step, sizes)
        ]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_device_memory()
    return None


def _iter_outputs(labeller: Labeller, step: Placed, sizes: WorkSizes) -> Iterator[ChunkOutput]:
    grid = labeller.options.grid
    if grid is not None:
        return iter_grid_outputs(labeller, step.images, step.uploaded, sizes, grid)
    return iter_batch_outputs(labeller, ImageBatch.of(step.images), step.uploaded, sizes)


def _make_results(
    labeller: Labeller,
    images: Sequence[PreparedImage],
    parts: Parts | ImageError,
    finish: Callable[[PreparedImage, ImageResult], None],
) -> list[ImageResult]:
    """Join what the chunks say of each image; waits for chunks that are not finished yet."""
    results = []
    done = [] if isinstance(parts, ImageError) else [p for one in parts for p in one.result()]
    for place, image in enumerate(images):
        if isinstance(parts, ImageError):
            result = to_result(image, parts)
        else:
            own = [part for part in done if part.image == place]
            result = to_result(image, join_image(labeller, image, own))
        finish(image, result)
        results.append(result)
    return results


@torch.inference_mode()
def label_batch(labeller: Labeller, batch: ImageBatch) -> list[Detections | ImageError]:
    """Label I images here and now, without threads.

    Returns:
        (I,) the objects of each image: in prompt order, or by quality in grid mode; an error where
        the network's output for an image is not finite.

    Raises:
        MemoryError: the batch is too large for the device.
    """
    uploaded = tuple(torch.tensor(i.input_rgb, device=labeller.device) for i in batch.images)
    outputs = _iter_outputs(labeller, Placed(batch.images, uploaded), labeller.work_sizes())
    parts = [part for output in outputs for part in finish_chunk(labeller, output)]
    return [
        join_image(labeller, image, [part for part in parts if part.image == place])
        for place, image in enumerate(batch.images)
    ]
