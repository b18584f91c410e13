"""Readers of Parquet, which Ray's runs and `ovsam export parquet` write."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from export_builders import CATEGORIES, HW, MASKS, NAMES
from interop_records import Record, lowest_iou

from ovsam_cli.outputs.coco import CocoOptions
from ovsam_cli.outputs.parquet import ParquetHeader, part_to_bytes

pytestmark = pytest.mark.interop


@pytest.fixture
def part(photos, tmp_path) -> Path:
    """A Parquet part of all images, the failed one included."""
    header = ParquetHeader(CATEGORIES, CocoOptions(), {})
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(part_to_bytes(photos[1], header))
    return path


def collect(rows: list[dict]) -> dict[str, list[np.ndarray]]:
    """Masks by image, decoded by pycocotools as any reader would."""
    from pycocotools import mask as coco_mask

    found = {}
    for row in rows:
        if row["status"] == "failed":
            continue
        size = [row["height"], row["width"]]
        assert tuple(size) == HW
        objects = row["annotations"]
        assert [one["category"] for one in objects] == list(NAMES[: len(objects)])
        found[row["file_name"]] = [
            coco_mask.decode({"size": size, "counts": one["rle_counts"]}) for one in objects
        ]
    return found


def test_pyarrow_reads_parquet(part, record: Record):
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(part.read_bytes()))
    assert table.num_rows == len(MASKS) + 1
    iou = lowest_iou(collect(table.to_pylist()))
    record("pyarrow", "parquet", "`parquet.read_table`, masks by pycocotools", iou)
    assert iou == 1.0


def test_datasets_reads_parquet(part, tmp_path, record: Record):
    import datasets

    dataset = datasets.load_dataset(
        "parquet", data_files=str(part), split="train", cache_dir=str(tmp_path / "c")
    )
    iou = lowest_iou(collect(list(dataset)))
    record("datasets", "parquet", "`load_dataset('parquet', …)`, masks by pycocotools", iou)
    assert iou == 1.0


def test_pandas_reads_parquet(part, record: Record):
    import pandas

    frame = pandas.read_parquet(part)
    assert list(frame["file_name"][: len(MASKS)]) == list(MASKS)
    rows = [{**row, "annotations": list(row["annotations"])} for row in frame.to_dict("records")]
    iou = lowest_iou(collect(rows))
    record("pandas", "parquet", "`read_parquet`, masks by pycocotools", iou)
    assert iou == 1.0
