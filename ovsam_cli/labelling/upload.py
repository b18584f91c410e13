"""Pixels on their way to the device: as bytes, normalized and padded only there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ovsam_cli.labelling.planner import PixelFormat
from ovsam_cli.raster import RgbArray


def normalize_and_pad(images: Sequence[Tensor], pixel_format: PixelFormat) -> Tensor:
    """The same float32 numbers as `images.preprocess`, made where the bytes are.

    Args:
        images: I images (h, w, 3) uint8 in the input frame, on one device.
        pixel_format: of the model.

    Returns:
        (I, 3, S, S) float32 in the padded model frame; the padding is zero after normalizing.
    """
    size, device = pixel_format.model_size, images[0].device
    pixels = torch.zeros(len(images), 3, size, size, device=device)
    # As tensors of the device: a number would be divided by as its rounded reciprocal there.
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(3, 1, 1).to(device, non_blocking=True)
        for values in (pixel_format.mean, pixel_format.std)
    )
    for place, image in zip(pixels, images, strict=True):
        height, width = image.shape[:2]
        inside = place[:, :height, :width]
        torch.sub(image.permute(2, 0, 1), mean, out=inside)
        inside.div_(std)
    return pixels


class PixelSlots:
    """A ring of places for resized images, made once: host memory does not grow with the run.

    On CUDA they are pinned, and bytes go up on a stream of their own, so that the next batch is
    there before the device asks for it. For one thread; others write into the places it hands out.

    Args:
        num_slots: images that may be read ahead or on their way.
        model_size: S, side of the model frame in pixels.
        device: where the network computes.
    """

    def __init__(self, num_slots: int, *, model_size: int, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._device = device
        self._bytes = torch.empty(
            num_slots, model_size * model_size * 3, dtype=torch.uint8, pin_memory=self._is_cuda
        )
        self._free = list(range(num_slots))
        self._leaving: deque[tuple[torch.cuda.Event, tuple[int, ...]]] = deque()
        self._stream = torch.cuda.Stream(device) if self._is_cuda else None  # type: ignore[no-untyped-call]

    def take(self, count: int) -> tuple[int, ...] | None:
        """`count` free places, or None where there are too few now."""
        while self._leaving and self._leaving[0][0].query():  # type: ignore[no-untyped-call]
            self._free.extend(self._leaving.popleft()[1])
        if count > len(self._free):
            return None
        return tuple(self._free.pop() for _ in range(count))

    def wait(self) -> None:
        """Until the bytes that left first have arrived."""
        if self._leaving:
            self._leaving[0][0].synchronize()

    def buffer(self, slot: int) -> RgbArray:
        """(S * S * 3,) uint8, the memory of a place."""
        flat: RgbArray = self._bytes[slot].numpy()
        return flat

    def upload(self, images: Sequence[RgbArray], slots: Sequence[int]) -> list[Tensor]:
        """Send (h, w, 3) uint8 images to the device and give their places back.

        Args:
            images: to send; on CUDA they lie in `slots`.
            slots: places that are not needed any more once the bytes have left.

        Returns:
            (h, w, 3) uint8 tensors on the device; on the CPU these are the images' own memory,
            to be read before the next `take`.
        """
        hosts = [torch.from_numpy(image) for image in images]
        if self._stream is None:
            self._free.extend(slots)
            return [host.to(self._device) for host in hosts]
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            sent = [host.to(self._device, non_blocking=True) for host in hosts]
            left = torch.cuda.Event()  # type: ignore[no-untyped-call]
            left.record(self._stream)
        current.wait_stream(self._stream)
        for image in sent:
            image.record_stream(current)  # its memory is the other stream's
        self._leaving.append((left, tuple(slots)))
        return sent
