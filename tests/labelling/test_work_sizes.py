"""Out of memory: the same rows again in smaller steps, which stay."""

from __future__ import annotations

import pytest
import torch

from ovsam_cli.labelling.work_sizes import WorkSizes, attempt, is_out_of_memory, run_in_chunks

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
]


class Device:
    """Has room for `most` rows a call."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most = most
        self.error = error
        self.calls: list[tuple[int, int, int]] = []

    def work(self, rows: slice, filled: int) -> list[int]:
        self.calls.append((rows.start, rows.stop, filled))
        if filled > self.most:
            raise self.error
        return list(range(rows.start, rows.stop))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_row_comes_once_and_small_steps_stay(error: Exception) -> None:
    messages: list[str] = []
    sizes = WorkSizes(images=1, prompts=64, on_message=messages.append)
    device = Device(20, error)
    found = [row for rows in run_in_chunks(100, sizes, device.work) for row in rows]
    assert found == list(range(100))
    assert device.calls[:3] == [(0, 64, 64), (0, 32, 32), (0, 16, 16)]
    assert sizes.prompts == 16 and len(messages) == 1
    list(run_in_chunks(10, sizes, device.work))
    assert len(device.calls) == 3 + 6 + 1  # the next items do not try the large step again
    assert len(messages) == 1


def test_few_rows_are_halved_at_once() -> None:
    """A chunk of 5 out of 64 allowed ones must not be tried five times over."""
    sizes, device = WorkSizes(images=1, prompts=64), Device(1, MemoryError())
    found = [row for rows in run_in_chunks(5, sizes, device.work) for row in rows]
    assert found == [0, 1, 2, 3, 4]
    assert [stop - start for start, stop, _ in device.calls] == [5, 2, 1, 1, 1, 1, 1]


def test_images_go_before_the_last_prompts() -> None:
    sizes, device = WorkSizes(images=4, prompts=32), Device(0, MemoryError())
    with pytest.raises(MemoryError):
        list(run_in_chunks(100, sizes, device.work))
    assert [filled for _, _, filled in device.calls] == [32, 16, 8]
    assert sizes.shrink_images(4) and sizes.images == 2
    assert sizes.shrink_images(2) and sizes.images == 1
    assert not sizes.shrink_images(1)
    device.calls.clear()
    with pytest.raises(MemoryError):
        list(run_in_chunks(100, sizes, device.work))
    assert [filled for _, _, filled in device.calls] == [8, 4, 2, 1]


def test_fixed_chunks_are_filled() -> None:
    sizes, device = WorkSizes(images=1, prompts=32, fixed=True), Device(32, MemoryError())
    assert sum(map(len, run_in_chunks(45, sizes, device.work))) == 45
    assert device.calls == [(0, 32, 32), (32, 40, 8), (40, 42, 2), (42, 44, 2), (44, 45, 2)]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        attempt(_raise)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))


def _raise() -> None:
    raise RuntimeError("shapes do not match")


def test_what_failed_is_dropped() -> None:
    """The error's frames would keep the tensors that did not fit beside the next try."""
    import gc
    import weakref

    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise MemoryError

    gc.disable()
    try:
        assert attempt(work) is None
        assert seen[0]() is None
    finally:
        gc.enable()
