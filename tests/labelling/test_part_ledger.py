"""Parts that many machines share: cut the same, complete or not there, nobody tried for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.labelling.part_labelling import PartWorker
from ovsam_cli.labelling.part_ledger import (
    PartJob,
    PartLedger,
    PartStats,
    count_images_per_part,
    cut_parts,
)
from ovsam_cli.labelling.plan import plan_run
from ovsam_cli.labelling.planner import plan_batches
from ovsam_cli.outputs.coco import CocoOptions
from ovsam_cli.outputs.folders import LocalFolder
from ovsam_cli.outputs.parquet import ParquetHeader
from ovsam_cli.outputs.parquet_reading import open_parts
from ovsam_cli.structures import ImageRecord

SETTINGS = {"weights": "0f", "parts.images_per_part": 4}


def make_ledger(path: Path) -> PartLedger:
    return PartLedger(LocalFolder(path))


@pytest.mark.parametrize("images_per_part", [1, 7, 512])
def test_parts_end_with_windows(images_per_part: int) -> None:
    records = [ImageRecord(Path(f"{n}"), f"{n}", n) for n in range(1, 1201)]
    batches = list(plan_batches(records, lambda record: record.image_id % 5, batch_size=8))
    parts = list(cut_parts(batches, images_per_part=images_per_part))
    assert [batch for part in parts for batch in part.batches] == batches
    assert [part.number for part in parts] == list(range(len(parts)))
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        ids = [record.image_id for batch in part.batches for record in batch]
        assert min(ids) >= part.first_image_id
        assert following is None or max(ids) < following.first_image_id + 512
    assert next(part.first_image_id for part in parts if part.first_image_id > 1) == 513


def test_small_runs_have_parts_for_all_workers() -> None:
    assert count_images_per_part(3, 8) == 1
    assert count_images_per_part(1600, 2) == 100
    assert count_images_per_part(10_000_000, 64) == 512


def test_settings_are_compared(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    assert ledger.open(SETTINGS, restart=False, overwrite=False) == SETTINGS
    other_parts = {**SETTINGS, "parts.images_per_part": 9}
    assert ledger.open(other_parts, restart=False, overwrite=False) == SETTINGS
    with pytest.raises(InputError, match='weights: was "0f", now "ff"'):
        ledger.open({**SETTINGS, "weights": "ff"}, restart=False, overwrite=False)
    fresh = {**SETTINGS, "weights": "ff"}
    assert ledger.open(fresh, restart=True, overwrite=False) == fresh
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"holds no parts of ovsam \(found 'photo.jpg'\)"):
        make_ledger(tmp_path / "other").open(SETTINGS, restart=False, overwrite=False)


def test_a_part_is_complete_with_its_note(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.folder.write("part-00001.parquet", b"by a process that was killed then")
    assert ledger.list_done() == set()
    ledger.begin(1)
    stats = PartStats(1, 4, 0, 9, 0, [], 1.5)
    ledger.finish_part(b"whole", stats)
    assert ledger.list_done() == {1} and ledger.read_stats(1) == stats
    assert ledger.folder.list_names() == ["_ledger/part-00001.json", "part-00001.parquet"]
    ledger.forget(1)
    assert ledger.list_done() == set()


@pytest.fixture
def worker(checkpoint: Path, photos: Path, tmp_path: Path) -> PartWorker:
    from ovsam_cli.labelling.local_engine import LocalEngine

    request = LabelRequest(
        images=(str(photos),),
        vocabulary="cat, dog, zebra",
        out=tmp_path / "out",
        model=str(checkpoint),
        devices="cpu",
        text_embeddings=None,
        options=LabelOptions(top_k=0, min_stability=0.0),
    )
    plan = plan_run(replace(request, options=replace(request.options, grid=None)))
    engine = LocalEngine.open(plan, on_message=lambda text: None)
    header = ParquetHeader(engine.facts.categories, CocoOptions(), {})
    return PartWorker(plan, engine, make_ledger(tmp_path / "parts"), header)


def test_an_image_that_ends_processes_is_given_up(
    worker: PartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deaths of the part, two of the image: then it is a failed row, and the other is there."""
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    job = PartJob(0, 1, tuple((record,) for record in worker.plan.records))
    guilty = worker.plan.records[0].file_name
    find = "ovsam_cli.labelling.planner.read_image"
    from ovsam_cli.labelling import planner

    read = planner.read_image

    def die(path: Path, *, apply_exif: bool) -> object:
        if Path(path).name == guilty:
            raise SystemExit
        return read(path, apply_exif=apply_exif)

    monkeypatch.setattr(find, die)
    for _ in range(4):
        with pytest.raises(SystemExit):
            worker.label(job)
    stats = worker.label(job)
    assert (stats.num_images, stats.num_failed) == (2, 1)
    assert stats.errors[0]["reason"] == "worker_died"
    statuses = [r.status for r in open_parts(tmp_path / "parts", partial=True).iter_results()]
    assert statuses == ["failed", "empty"]
    assert worker.label(job) == stats  # a task that Ray gives out once more is not done once more
