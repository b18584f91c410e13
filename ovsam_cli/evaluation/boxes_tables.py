"""Tables 2, 4 and S2 of the paper beside our figures for a detector's boxes; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovsam_cli.evaluation.detections import DetectionReport
from ovsam_cli.evaluation.published import (
    SOURCE_MASKS,
    SOURCE_MASKS_LVIS,
    SOURCE_NAMES,
    TABLE_2,
    TABLE_2_FIGURES,
    TABLE_4,
    TABLE_4_FIGURES,
    TABLE_S2,
    TABLE_S2_FIGURES,
    PublishedPrecision,
)
from ovsam_cli.outputs.json_values import JsonValue


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """Published rows and, last, our own.

    Attributes:
        source: paper and table.
        figures: names of the columns.
        rows: (method, one share in percent for each figure, None where there are no objects,
            or where the published one is not known).
    """

    source: str
    figures: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


def compare_published(
    detector_names: DetectionReport, own_names: DetectionReport
) -> tuple[ComparisonTable, ...]:
    """The paper's tables where the data are COCO's or LVIS's with masks, else nothing.

    Args:
        detector_names, own_names: the same masks and scores under the names of each.
    """
    tables = []
    data = own_names.split_name
    if data in TABLE_2:
        figures = TABLE_2_FIGURES[data]
        tables += _build(SOURCE_NAMES, figures, TABLE_2[data], own_names)
    if data == "coco":
        tables += _build(SOURCE_MASKS, TABLE_4_FIGURES, TABLE_4, detector_names)
    if data == "lvis":
        tables += _build(SOURCE_MASKS_LVIS, TABLE_S2_FIGURES, TABLE_S2, detector_names)
    return tuple(tables)


def describe_tables(tables: Sequence[ComparisonTable]) -> list[JsonValue]:
    """The same for `metrics.json`."""
    return [
        {
            "source": table.source,
            "rows": [
                {"method": method, **dict(zip(table.figures, shares, strict=True))}
                for method, shares in table.rows
            ],
        }
        for table in tables
    ]


def _build(
    source: str,
    figures: tuple[str, ...],
    published: Sequence[PublishedPrecision],
    report: DetectionReport,
) -> list[ComparisonTable]:
    """One table; none without masks, or where the figures are of other rules."""
    masks = next((part.figures for part in report.parts if part.kind == "segm"), {})
    if not all(name in masks for name in figures):
        return []
    shares = [masks[name] for name in figures]
    ours = tuple(None if share is None else 100 * share for share in shares)
    rows = [(f"{one.method}, published", one.values) for one in published]
    return [ComparisonTable(source, figures, (*rows, ("measured here", ours)))]
