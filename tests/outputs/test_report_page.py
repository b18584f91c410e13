"""The report page: all of a run's figures, a bounded sample, nothing from outside, equal bytes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from result_builders import failed_result, make_result

from ovsam_cli.outputs.report import ReportWriter
from ovsam_cli.outputs.report_sample import (
    NUM_RANDOM,
    NUM_UNCERTAIN,
    UNCERTAIN_MARGIN,
    RunStatistics,
    SampleChooser,
)
from ovsam_cli.structures import ImageRecord, ImageResult

NAMES = {number: f"name <{number}>" for number in range(1, 8)}
RECORD = {
    "weights": {"name": "tiny"},
    "vocabulary": {"name": "pets & co"},
    "options": {"min_score": 0.1, "grid": None},
    "unmatched_prompts": ["<script>alert(1)</script>"],
}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def write_results(folder: Path, count: int) -> list[ImageResult]:
    """Results of images that are there, of 3 objects each."""
    results = []
    for number in range(1, count + 1):
        path = folder / f"{number}.png"
        Image.fromarray(np.full((48, 64, 3), 40 + number % 200, np.uint8)).save(path)
        record = ImageRecord(path, f'dir/<b>&"{number}.png', number)
        results.append(replace(make_result(number), record=record))
    return results


def render(results: list[ImageResult], path: Path) -> str:
    report = ReportWriter(names=NAMES, num_images=len(results))
    for result in results:
        report.add(result)
    report.write(path, RECORD)
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Tags with attributes; complains of tags that are not closed."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader.found


def test_page_has_figures_cards_and_failures(tmp_path: Path) -> None:
    results = [*write_results(tmp_path, 4), failed_result(9)]
    page = render(results, tmp_path / "report.html")
    tags = read(page)
    cards = [one for tag, one in tags if tag == "li" and "data-margin" in one]
    assert len(cards) == 12
    assert [*map(float, (one["data-margin"] for one in cards))] == sorted(
        round(float(margin), 4) for one in results[:4] for margin in one.detections.margins
    )
    assert {one["data-file"] for one in cards} == {f'dir/<b>&"{n}.png' for n in range(1, 5)}
    pictures = [one["src"] for tag, one in tags if tag == "img"]
    assert len(pictures) == 12 and all(s.startswith("data:image/jpeg;base64,") for s in pictures)
    assert "Images that failed, 1: truncated 1" in page and "ends after 1200 bytes" in page
    assert "All 12 objects" in page and "model tiny, vocabulary pets &amp; co" in page
    assert "options.min_score" in page and "&lt;script&gt;alert(1)" in page
    assert "prefers-color-scheme: dark" in page


def test_nothing_comes_from_outside(tmp_path: Path) -> None:
    page = render(write_results(tmp_path, 2), tmp_path / "report.html")
    for tag, attributes in read(page):
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp", page)


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    results = write_results(tmp_path, 6)
    assert render(results, tmp_path / "a.html") == render(results, tmp_path / "b.html")


def test_missing_and_changed_images_are_no_failure(tmp_path: Path) -> None:
    results = write_results(tmp_path, 3)
    results[0].record.path.unlink()
    results[1].record.path.write_bytes(b"no image")
    Image.new("RGB", (10, 10)).save(results[2].record.path)
    page = render(results, tmp_path / "report.html")
    assert page.count("image not there") == 9 and "<img" not in page


def test_run_without_results(tmp_path: Path) -> None:
    page = render([], tmp_path / "report.html")
    assert "No object was found" in page and "<script" not in page
    page = render([make_result(1, 0)], tmp_path / "report.html")
    assert "images without objects" in page


def test_statistics_count_every_object() -> None:
    statistics = RunStatistics()
    results = [make_result(number, number % 4) for number in range(1, 30)]
    for result in results:
        statistics.add(result)
    margins = np.concatenate([result.detections.margins for result in results])
    assert statistics.num_objects == len(margins) == statistics.categories.total()
    assert statistics.num_uncertain == (margins < UNCERTAIN_MARGIN).sum()
    for counts in (statistics.scores, statistics.margins, statistics.stability):
        assert counts.sum() == len(margins)
    assert statistics.area_shares.sum() == len(margins)
    assert statistics.statuses["empty"] == 7 and statistics.num_images == 29


def test_sample_of_a_long_run_is_bounded_and_the_most_uncertain() -> None:
    """At most three of an image, so that one bad image does not fill the gallery."""
    base = make_result(1, 8)
    chooser, random = SampleChooser(3000), np.random.default_rng(0)
    expected = []
    for number in range(1, 3001):
        margins = random.random(8).astype(np.float32)
        found = replace(base.detections, margins=margins)
        record = ImageRecord(Path(f"{number}.jpg"), f"{number}.jpg", number)
        chooser.add(replace(base, record=record, detections=found))
        expected += sorted(margins.tolist())[:3]
    samples = chooser.choose()
    uncertain = [one.margin for one in samples if not one.is_random]
    assert uncertain == sorted(expected)[:NUM_UNCERTAIN]
    chosen = [one for one in samples if one.is_random]
    assert NUM_RANDOM - 5 <= len(chosen) <= NUM_RANDOM
    middle = np.mean([one.record.image_id for one in chosen])
    assert 1000 < middle < 2000  # of the whole run, not of its start
    assert len({(one.record.image_id, one.row) for one in samples}) == len(samples)


@pytest.mark.slow
def test_page_of_a_hundred_thousand_images(tmp_path: Path) -> None:
    """Under 20 MB, whatever the images: noise is what JPEG likes least."""
    rng = np.random.default_rng(1)
    paths = []
    for number in range(40):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(paths[-1])
    base = make_result(1, 3, hw=(480, 640))
    report = ReportWriter(names=NAMES, num_images=100_000)
    for number in range(1, 100_001):
        record = ImageRecord(paths[number % 40], f"{number}.jpg", number)
        margins = rng.random(3).astype(np.float32)
        report.add(
            replace(base, record=record, detections=replace(base.detections, margins=margins))
        )
    report.write(tmp_path / "report.html", RECORD)
    assert (tmp_path / "report.html").stat().st_size < 20e6
