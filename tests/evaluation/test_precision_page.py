"""Pages of average precision, and Tables 2, 4 and S2 of the paper beside our figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from coco_toys import entry, square, write_coco, write_results
from test_prompted import read_coco_categories, write_mini_coco
from typer.testing import Result

from ovsam_cli.evaluation.boxes_tables import compare_published
from ovsam_cli.evaluation.detections import evaluate_detections
from ovsam_cli.evaluation.precision_charts import draw_curves, draw_shares, draw_spread

Ovsam = Callable[..., Result]


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path]:
    """A cat that is found and a dog <i> that is not; results, truth."""
    objects = [entry(1, 1, 1, square(5, 5, 20)), entry(2, 1, 2, square(40, 10, 30))]
    truth = write_coco(tmp_path / "truth.json", objects, names=("cat", "dog <i>"))
    return write_results(tmp_path / "results.json", [objects[0] | {"score": 0.9}]), truth


def test_curve_of_one_found_and_one_missed(toy: tuple[Path, Path]) -> None:
    """Precision 1 for one of two names at every recall: a flat line at a half."""
    part = evaluate_detections(*toy).parts[1]
    assert part.curves["IoU .50"] == (0.5,) * 101
    assert part.figures["AP"] == pytest.approx(0.5)


def test_the_area_below_a_curve_is_its_figure(toy: tuple[Path, Path]) -> None:
    for part in evaluate_detections(*toy).parts:
        for name, figure in (("IoU .50", "AP50"), ("IoU .75", "AP75"), ("IoU .50 to .95", "AP")):
            assert sum(part.curves[name]) / 101 == pytest.approx(part.figures[figure])


def test_page_of_detections(ovsam: Ovsam, toy: tuple[Path, Path], tmp_path: Path) -> None:
    result = ovsam("eval", "detections", *toy, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "out" / "report.html") in result.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<i>" not in page and "dog &lt;i&gt;" in page
    assert "http" not in page and str(tmp_path) not in page
    assert page.count("<svg") == 4
    assert "COCO's, at most 100 objects an image and name" in page.replace("&#x27;", "'")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(metrics["figures"]["segm"]["precision_by_recall"]["IoU .50"]) == 101


def test_page_without_any_truth(ovsam: Ovsam, tmp_path: Path) -> None:
    """No objects, no figures; still a page."""
    truth = write_coco(tmp_path / "truth.json", [])
    results = write_results(tmp_path / "r.json", [])
    result = ovsam("eval", "detections", results, truth, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Average precision" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "chart",
    [
        draw_curves("c", {"a": (1.0, 0.5, 0.0), "b & c": ()}),
        draw_shares("s", "n", [("x" * 99, 0.5), ("<y>", None)]),
        draw_spread("h", {"a": 0.0, "b": 1.0}),
        draw_shares("s", "n", []),
    ],
    ids=["curves", "shares", "spread", "nothing"],
)
def test_charts_are_well_formed(chart: str) -> None:
    ElementTree.fromstring(chart)


def test_tables_of_the_paper(tmp_path: Path) -> None:
    """A person and a dog of COCO, both found: 100 percent in the last row of each table."""
    names = [one["name"] for one in read_coco_categories()]
    objects = [
        entry(n, 1, names.index(name) + 1, square(30 * n, 5, 20))
        for n, name in enumerate(("person", "dog"), 1)
    ]
    truth = write_coco(tmp_path / "truth.json", objects, num_images=1, names=names)
    results = write_results(tmp_path / "r.json", [one | {"score": 0.5} for one in objects])
    report = evaluate_detections(results, truth)
    names_table, masks_table = compare_published(report, report)
    assert names_table.rows[2] == ("Open-Vocabulary SAM, published", (31.1, 36.0, 32.4))
    assert names_table.rows[-1][1] == pytest.approx((100, 100, 100))
    assert masks_table.figures[:3] == ("AP", "AP50", "AP75")
    assert masks_table.rows[-1][1][0] == pytest.approx(100)
    assert masks_table.rows[-1][1][-1] is None  # no large objects


def test_tables_of_the_paper_for_lvis(tmp_path: Path) -> None:
    """Table S2 stands in the place of Table 4; what is not known of it is None."""
    path = Path(__file__).parents[2] / "vocabularies" / "lvis.json"
    names = [one["name"] for one in json.loads(path.read_text())["categories"]]
    truth = write_coco(
        tmp_path / "lvis.json",
        [entry(1, 1, 1, square(5, 5, 20))],
        names=names,
        image={"neg_category_ids": [], "not_exhaustive_category_ids": []},
        category={"frequency": "c"},
    )
    found = [entry(1, 1, 1, square(5, 5, 20), score=0.5)]
    report = evaluate_detections(write_results(tmp_path / "r.json", found), truth)
    names_table, masks_table = compare_published(report, report)
    assert names_table.rows[2][1] == (24.0, 21.3, 22.9, 22.4)
    assert "Table S2" in masks_table.source
    assert masks_table.rows[1] == (
        "Open-Vocabulary SAM, Detic Swin-B, published",
        (42.6, None, 29.7),
    )
    assert masks_table.rows[-1][1] == (pytest.approx(100), None, pytest.approx(100))


def test_no_table_for_other_data(toy: tuple[Path, Path]) -> None:
    report = evaluate_detections(*toy)
    assert compare_published(report, report) == ()


def test_boxes_of_coco(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    """Both tables on the terminal, on the page and in the metrics."""
    write_mini_coco(tmp_path / "coco")
    truth = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    objects = json.loads(truth.read_text())["annotations"]
    boxes = write_results(tmp_path / "boxes.json", [one | {"score": 0.5} for one in objects])
    result = ovsam(
        *("eval", "prompted", tmp_path / "coco", "--boxes", boxes, "--devices", "cpu"),
        *("--model", checkpoint, "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    tables = json.loads((tmp_path / "out" / "metrics.json").read_text())["published"]
    for text in (result.stdout, page, tables[0]["source"] + tables[1]["source"]):
        assert "Table 2" in text and "Table 4" in text
    assert tables[1]["rows"][4]["AP"] == 48.8
    assert page.count("<svg") == 8  # of the detector's names, and of ours
    assert "&#x27;weights" not in page  # facts read as words, not as Python
    assert str(tmp_path) not in page
