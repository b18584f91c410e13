"""Batches go to processes that may die; nothing is lost and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from stub_worker import FINGERPRINT, Orders, run_stub

from ovsam_cli.errors import DeviceError, InputError
from ovsam_cli.labelling.distributed import Dispatcher
from ovsam_cli.labelling.engine import LabelJob
from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.journal_index import read_run
from ovsam_cli.labelling.options import LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.labelling.worker_pool import WorkerPool
from ovsam_cli.structures import ImageRecord, ImageResult
from ovsam_cli.vocabulary import Category, Vocabulary

NUM_IMAGES = 12
TWO = ("cpu", "mps")


class Stage:
    """A run of stub workers, and what became of it."""

    def __init__(self, out: Path, orders: Orders) -> None:
        self.out = out
        self.orders = orders
        self.messages: list[str] = []
        self.on_message = self.messages.append
        self.results: list[ImageResult] = []
        prepare_output(out).release()

    def run(
        self,
        *,
        batch_size: int = 1,
        devices: Sequence[str] = TWO,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, str]:
        """Label what is left; status by file name, of the whole journal."""
        records = tuple(
            ImageRecord(Path(f"{number:02d}.png"), f"{number:02d}.png", number)
            for number in range(1, NUM_IMAGES + 1)
        )
        batches = [records[at : at + batch_size] for at in range(0, NUM_IMAGES, batch_size)]
        with (
            WorkerPool(devices, self._make_work, on_message=self.on_message) as pool,
            Journal.open(self.out, FINGERPRINT) as journal,
        ):
            left = {record.file_name for record in records} - journal.finished
            job = LabelJob(
                plan=_plan(self.out, records),
                batches=[b for b in batches if any(r.file_name in left for r in b)],
                left=left,
                journal=journal,
                on_result=self.results.append,
                on_message=self.on_message,
                should_stop=should_stop,
            )
            Dispatcher(pool, job).run()
            seen = {r.record.file_name: r.status for r in journal.iter_results(records)}
        on_disk = {r.record.file_name: r.status for r in read_run(self.out).iter_results()}
        assert on_disk == seen
        return seen

    def _make_work(self, device: str, batch_size: int | None) -> object:
        return partial(run_stub, orders=self.orders, device=device)


def _plan(out: Path, records: tuple[ImageRecord, ...]) -> RunPlan:
    request = LabelRequest(images=("a",), vocabulary="cat", out=out)
    vocabulary = Vocabulary("pets", (Category(1, "cat", ("cat",)),))
    return RunPlan(request, records, vocabulary, None, None, ())


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    """`stage(at_image=..., at_start=..., seconds=...)`: a run with these orders."""
    marks = tmp_path / "marks"
    marks.mkdir()
    return lambda **orders: Stage(tmp_path / "out", Orders(marks, **orders))


def test_all_devices_share_the_work(stage):
    run = stage(wait_for=("ready cpu", "ready mps"), seconds=0.05)
    assert set(run.run().values()) == {"empty"}
    assert len(run.results) == NUM_IMAGES
    sizes = [path.stat().st_size > 0 for path in sorted((run.out / ".ovsam").glob("part-*"))]
    assert sizes[1:] == [True, True]
    assert run.messages == []
    run.results.clear()
    run.run()  # nothing is left: only one worker is asked what the run is
    assert run.results == []


def test_what_a_killed_worker_had_is_tried_again(stage):
    run = stage(at_image={"03.png": "die once"})
    assert set(run.run().values()) == {"empty"}
    assert sorted(r.record.image_id for r in run.results) == list(range(1, NUM_IMAGES + 1))
    (message,) = run.messages
    assert "its process was killed by signal 9" in message and "is tried again" in message


def test_a_row_that_was_written_but_not_reported_counts(stage):
    run = stage(at_image={"03.png": "die once behind its row"})
    assert set(run.run().values()) == {"empty"}
    assert sorted(r.record.image_id for r in run.results) == list(range(1, NUM_IMAGES + 1))
    parts = (run.out / ".ovsam").glob("part-*")
    assert sum(part.read_bytes().count(b'"03.png"') for part in parts) == 2  # name and path, once


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_that_kills_workers_fails_alone(stage, batch_size):
    """All others are labelled, those of its batch too; the run goes on to its end."""
    run = stage(at_image={"06.png": "die"})
    found = run.run(batch_size=batch_size)
    assert [name for name, status in found.items() if status == "failed"] == ["06.png"]
    (failed,) = [result for result in run.results if result.status == "failed"]
    assert failed.reason == "worker_died"
    assert "06.png: the worker process was killed by signal 9" in failed.message


@pytest.mark.slow
def test_every_image_kills(stage):
    """As where the model does not fit into memory: no device is left, what failed is known."""
    names = [f"{number:02d}.png" for number in range(1, NUM_IMAGES + 1)]
    run = stage(at_image=dict.fromkeys(names, "die"))
    found = run.run(devices=("cpu",))
    assert set(found.values()) == {"failed"}


def test_a_worker_that_raises_says_why(stage):
    run = stage(at_image={"02.png": "raise"})
    assert run.run(batch_size=2)["02.png"] == "failed"
    assert (
        "its process stopped: RuntimeError: something is broken (stub_worker.py:"
        in (run.messages[0])
    )


def test_a_device_whose_workers_cannot_start_is_left_out(stage):
    run = stage(at_start={"mps": "die"}, wait_for=("given up",))
    note = run.messages.append

    def on_message(text: str) -> None:
        note(text)
        if "going on without it" in text:
            (run.orders.marks / "given up").touch()

    run.on_message = on_message
    assert set(run.run().values()) == {"empty"}
    assert run.messages[-1].startswith("mps: its process died 4 times in a row")
    assert run.messages[-1].endswith("going on without it")


@pytest.mark.parametrize("order", ["die", pytest.param("raise", marks=pytest.mark.slow)])
def test_no_device_can_start(stage, order):
    run = stage(at_start=dict.fromkeys(TWO, order))
    with pytest.raises(DeviceError, match=r"died 4 times in a row.*no device is left.*are kept"):
        run.run()
    assert len(run.messages) == 7
    assert run.messages[3].endswith("going on without it")


def test_the_first_device_cannot_start(stage):
    """The next one says what the run is."""
    run = stage(at_start={"cpu": "die"})
    assert set(run.run().values()) == {"empty"}


def test_an_error_of_the_user_ends_the_run_at_once(stage):
    with pytest.raises(InputError, match="weights that nobody has"):
        stage(at_start={"cpu": "refuse"}).run()
    with pytest.raises(InputError, match="weights that nobody has"):
        stage(at_start={"mps": "refuse"}, wait_for=("ready mps",)).run()


def test_devices_that_compute_differently_are_refused(stage):
    with pytest.raises(DeviceError, match=r'dtype is "float32" on cpu, "bfloat16" on mps'):
        stage(at_start={"mps": "differ"}, wait_for=("never",)).run()


def test_a_stop_lets_batches_in_hand_end_and_the_rest_for_later(stage):
    run = stage(seconds=0.1)
    found = run.run(should_stop=lambda: len(run.results) >= 2)
    assert 2 <= len(found) < NUM_IMAGES
    assert len(run.run()) == NUM_IMAGES
    assert sorted(r.record.image_id for r in run.results) == list(range(1, NUM_IMAGES + 1))
