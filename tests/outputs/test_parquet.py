"""Results in Parquet parts and back: the same COCO file, whatever the parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from result_builders import make_detections

from ovsam_cli.errors import InputError
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions, CocoWriter
from ovsam_cli.outputs.folders import LocalFolder, open_folder
from ovsam_cli.outputs.parquet import ParquetHeader, part_to_bytes, write_parts
from ovsam_cli.outputs.parquet_reading import open_parts
from ovsam_cli.structures import ImageRecord, ImageResult

CATEGORIES = tuple(CocoCategory(number, f"name {number}") for number in range(1, 5))
OPTIONS = CocoOptions(with_prompt=True, with_topk=True, version="1", weights_notice="none")
HEADER = ParquetHeader(CATEGORIES, OPTIONS, {"weights": "0f", "options.top_k": 2})


def make_results(count: int = 9) -> list[ImageResult]:
    """All kinds: objects, none, failed, warnings, and a name that is not UTF-8."""
    results = []
    for number in range(1, count + 1):
        record = ImageRecord(Path(f"/photos/{number}.jpg"), f"{number}.jpg", number)
        found = make_detections(number % 4, seed=number)
        if number == 5:
            found = replace(found, iou_predictions=np.full(len(found), 0.7, np.float32))
        results.append(
            ImageResult(
                record, "ok" if len(found) else "empty", (48, 64), 6, found, warnings=("CMYK",)
            )
        )
    odd = ImageRecord(Path("/photos/caf\udce9.jpg"), "caf\udce9.jpg", 3)
    results[2] = replace(results[2], record=odd)
    gone = ImageRecord("s3://bucket/7.jpg", "7.jpg", 7)
    results[6] = ImageResult(gone, "failed", reason="not_found", message="7.jpg: no such file")
    return results


def write_coco(path: Path, results: list[ImageResult]) -> bytes:
    with CocoWriter(path, categories=CATEGORIES, options=OPTIONS) as coco:
        for result in results:
            coco.write(result)
    return path.read_bytes()


@pytest.mark.parametrize("images_per_part", [1, 4, 100])
def test_the_coco_file_is_the_same(tmp_path: Path, images_per_part: int) -> None:
    results = make_results()
    folder = LocalFolder(tmp_path / "parts")
    counts = write_parts(folder, results, HEADER, images_per_part=images_per_part)
    assert counts.num_parts == -(-len(results) // images_per_part)
    assert (counts.num_images, counts.num_objects) == (9, 10)
    run = open_parts(tmp_path / "parts")
    assert (run.categories, run.coco, dict(run.settings)) == (CATEGORIES, OPTIONS, HEADER.settings)
    found = list(run.iter_results())
    assert run.num_images == len(found) == 9
    for before, after in zip(results, found, strict=True):
        assert replace(after, detections=None) == replace(before, detections=None)
    again = write_coco(tmp_path / "again.json", found)
    assert again == write_coco(tmp_path / "first.json", results)


def test_parts_whose_ids_interlock(tmp_path: Path) -> None:
    """Parts of one window of batches: every second image each, and one part for what follows."""
    results = make_results()
    folder = open_folder(tmp_path)
    folder.write("part-00000.parquet", part_to_bytes(results[1:6:2], HEADER))
    folder.write("part-00001.parquet", part_to_bytes(results[0:6:2], HEADER))
    later = part_to_bytes(results[6:], replace(HEADER, first_image_id=7))
    folder.write("part-00002.parquet", later)
    with pytest.raises(InputError, match=r"not finished .no _SUCCESS, 3 parts so far"):
        open_parts(tmp_path)
    ids = [one.record.image_id for one in open_parts(tmp_path, partial=True).iter_results()]
    assert ids == list(range(1, 10))


def test_columns_are_for_people_too(tmp_path: Path) -> None:
    write_parts(LocalFolder(tmp_path), make_results(), HEADER)
    table = pq.read_table(tmp_path / "part-00000.parquet")
    assert table.column("file_name").to_pylist()[2] == "caf\\udce9.jpg"
    assert table.column("raw_names").to_pylist()[2]["file_name"] == b"caf\xe9.jpg"
    assert table.column("error").to_pylist()[6] == "7.jpg: no such file"
    first = table.column("annotations").to_pylist()[0][0]
    assert first["category"] == f"name {first['category_id']}"
    assert (
        pq.ParquetFile(tmp_path / "part-00000.parquet").metadata.row_group(0).column(0).compression
        == "ZSTD"
    )


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no part-\*.parquet"):
        open_parts(tmp_path)
    folder = LocalFolder(tmp_path)
    folder.write("_SUCCESS", b"")
    folder.write("part-00000.parquet", b"no parquet")
    with pytest.raises(InputError, match=r"part-00000.parquet: is no Parquet part of ovsam"):
        open_parts(tmp_path)
    results = make_results()
    whole = part_to_bytes(results, HEADER)
    folder.write("part-00000.parquet", whole)
    folder.write("part-00001.parquet", whole)
    with pytest.raises(InputError, match="image_id 1 stands twice"):
        list(open_parts(tmp_path).iter_results())
    other = replace(HEADER, settings={"weights": "ff"}, first_image_id=9)
    folder.write("part-00001.parquet", part_to_bytes(results, other))
    with pytest.raises(InputError, match=r"part-00001.parquet: was made with other settings"):
        list(open_parts(tmp_path).iter_results())
    folder.write("part-00001.parquet", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-00001.parquet"):
        list(open_parts(tmp_path).iter_results())
