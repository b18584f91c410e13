"""Threads behind the device: order, bounds, errors and stopping."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from ovsam_cli.labelling.hand_over import ByteBudget, HandOver, choose_max_bytes
from ovsam_cli.structures import ImageRecord, ImageResult

SECONDS = 20.0  # far more than anything here takes


def result_of(number: int) -> ImageResult:
    return ImageResult(ImageRecord(Path(f"{number}.jpg"), f"{number}.jpg", number), "empty")


class Results(list[ImageResult]):
    """A list that can be watched."""


def names_of(threads: list[threading.Thread]) -> set[str]:
    return {thread.name.split("_")[0] for thread in threads}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> object:
    yield
    assert not names_of(threading.enumerate()) & {"finish", "write", "read"}


def test_results_are_written_in_the_order_of_the_promises() -> None:
    written: list[int] = []
    go_on = threading.Event()
    with HandOver(lambda r: written.append(r.record.image_id), num_threads=3) as hand_over:
        slow = hand_over.submit(lambda: go_on.wait(SECONDS), 10)
        hand_over.promise(lambda: [result_of(int(slow.result()))])
        for number in (2, 3, 4):
            hand_over.promise(lambda number=number: [result_of(number)])
        assert written == []
        go_on.set()
    assert written == [1, 2, 3, 4]


def test_memory_between_the_stages_is_bounded() -> None:
    most, lock, held = 0, threading.Lock(), 0

    def work() -> None:
        nonlocal held
        with lock:
            held -= 30

    with HandOver(lambda result: None, num_threads=4, max_bytes=100) as hand_over:
        budget = hand_over._budget
        works = []
        for _ in range(200):
            works.append(hand_over.submit(work, 30))
            most = max(most, budget.used)
        for done in works:  # as promises do; what nobody waits for is cancelled at the end
            done.result()
    assert most <= 100
    assert budget.used == 0


def test_written_results_are_let_go_before_the_next_ones_come() -> None:
    """The writer's thread kept an image's objects while the next image was on the device."""
    left: list[weakref.ref[Results]] = []
    is_written = threading.Event()

    def make() -> Results:
        results = Results([result_of(1)])
        left.append(weakref.ref(results))
        return results

    def write(result: ImageResult) -> None:
        is_written.set()

    with HandOver(write, num_threads=1) as hand_over:
        hand_over.promise(make)
        assert is_written.wait(SECONDS)
        deadline = time.monotonic() + SECONDS
        while left[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert left[0]() is None


def test_a_cpu_computes_no_more_logits_ahead_than_a_chunk_of_the_largest_model() -> None:
    assert choose_max_bytes("cpu") == 16 << 20
    assert choose_max_bytes("cuda") > choose_max_bytes("cpu")


def test_one_item_above_the_limit_passes_alone() -> None:
    budget = ByteBudget(10)
    budget.acquire(50)
    passed = threading.Event()

    def second() -> None:
        budget.acquire(1)
        passed.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not passed.wait(0.05)
    budget.release(50)
    assert passed.wait(SECONDS)
    thread.join()


def fail(error: BaseException) -> Callable[..., object]:
    def raises(*arguments: object) -> object:
        raise error

    return raises


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["os", "stop"])
def test_an_error_of_the_writer_is_the_callers(error: BaseException) -> None:
    with pytest.raises(type(error)):
        with HandOver(fail(error), num_threads=1, max_bytes=1) as hand_over:
            while True:  # also where the device's thread waits for room
                hand_over.promise(lambda: [result_of(1)])


def test_an_error_of_a_finishing_thread_is_the_callers() -> None:
    written: list[int] = []
    with pytest.raises(ValueError, match="wrong"):
        with HandOver(lambda r: written.append(r.record.image_id), num_threads=2) as hand_over:
            hand_over.promise(lambda: [result_of(1)])
            part = hand_over.submit(fail(ValueError("wrong")), 5)
            hand_over.promise(lambda: [part.result()])  # type: ignore[list-item]
            hand_over.promise(lambda: [result_of(3)])
    assert written == [1]


def test_stopping_writes_what_is_there_and_begins_nothing() -> None:
    written: list[int] = []
    begun, go_on = threading.Event(), threading.Event()
    later: list[int] = []

    def slow() -> list[ImageResult]:
        begun.set()
        go_on.wait(SECONDS)
        return [result_of(2)]

    def never() -> list[ImageResult]:
        later.append(3)
        return [result_of(3)]

    with pytest.raises(KeyboardInterrupt):
        with HandOver(lambda r: written.append(r.record.image_id), num_threads=1) as hand_over:
            hand_over.promise(lambda: [result_of(1)])
            hand_over.promise(slow)
            hand_over.promise(never)
            assert begun.wait(SECONDS)
            threading.Timer(0.1, go_on.set).start()
            raise KeyboardInterrupt
    assert written[:1] == [1] and 3 not in written and later == []
