"""Files of detections: which image and category each is of, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coco_toys import Entry, entry, square, write_coco, write_results

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.detections import DetectionReport, evaluate_detections


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A cat and a dog in image 1, a dog in image 2; annotation ids begin at 0."""
    objects = [
        entry(0, 1, 1, square(5, 5, 20)),
        entry(1, 1, 2, square(40, 10, 30)),
        entry(2, 2, 2, square(10, 10, 40)),
    ]
    return write_coco(tmp_path / "truth.json", objects)


def perfect(truth: Path) -> list[Entry]:
    objects: list[Entry] = json.loads(truth.read_text())["annotations"]
    return [one | {"score": 0.9} for one in objects]


def segm(report: DetectionReport) -> dict[str, float | None]:
    return report.parts[1].figures


def test_annotation_id_0_is_an_object_like_any_other(truth: Path, tmp_path: Path) -> None:
    """COCO's own evaluation takes id 0 for "unmatched": AP .5 of cats that are all found."""
    results = [{k: v for k, v in one.items() if k != "id"} for one in perfect(truth)]
    report = evaluate_detections(write_results(tmp_path / "r.json", results), truth)
    assert [part.kind for part in report.parts] == ["bbox", "segm"]
    assert segm(report)["AP"] == 1.0
    assert report.parts[1].by_category == {"cat": 1.0, "dog": 1.0}


def test_no_results(truth: Path, tmp_path: Path) -> None:
    report = evaluate_detections(write_results(tmp_path / "r.json", []), truth)
    assert segm(report)["AP"] == 0.0


def test_unknown_ids_are_left_out_and_counted(truth: Path, tmp_path: Path) -> None:
    more = [perfect(truth)[0] | {"image_id": 77}, perfect(truth)[0] | {"category_id": 9}]
    results = write_results(tmp_path / "r.json", perfect(truth) + more)
    report = evaluate_detections(results, truth)
    assert report.found.left_out == {"of unknown images": 1, "of unknown categories": 1}
    assert segm(report)["AP"] == 1.0


def test_nothing_in_common(truth: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path / "r.json", [perfect(truth)[0] | {"image_id": 77}])
    with pytest.raises(InputError, match=r"none of its objects.*1 of unknown images"):
        evaluate_detections(results, truth)


def test_other_ids_same_names(truth: Path, tmp_path: Path) -> None:
    """A tool's own numbers: images are known by file, categories by name."""
    content = json.loads(truth.read_text())
    for image in content["images"]:
        image["id"] += 100
    content["categories"] = [{"id": 1, "name": "Dog"}, {"id": 2, "name": "cat"}]
    for one in content["annotations"]:
        one |= {"image_id": one["image_id"] + 100, "category_id": 3 - one["category_id"]}
        one["score"] = 0.5
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(content))
    assert segm(evaluate_detections(labels, truth))["AP"] == 1.0


def test_names_in_folders(truth: Path, tmp_path: Path) -> None:
    """`val2017/1.jpg` of a tool that walked from one folder above."""
    content = json.loads(truth.read_text())
    for image in content["images"]:
        image |= {"file_name": f"val2017/{image['file_name']}", "id": 3 - image["id"]}
    for one in content["annotations"]:
        one |= {"image_id": 3 - one["image_id"], "score": 1}
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(content))
    assert segm(evaluate_detections(labels, truth))["AP"] == 1.0


def test_boxes_alone(truth: Path, tmp_path: Path) -> None:
    results = [{k: v for k, v in one.items() if k != "segmentation"} for one in perfect(truth)]
    report = evaluate_detections(write_results(tmp_path / "r.json", results), truth)
    assert [part.kind for part in report.parts] == ["bbox"]


def test_crowds_do_not_count(tmp_path: Path) -> None:
    """A find in a crowd is neither right nor wrong."""
    objects = [entry(1, 1, 1, square(5, 5, 20)), entry(2, 1, 1, square(40, 5, 30), iscrowd=1)]
    truth = write_coco(tmp_path / "truth.json", objects)
    results = [entry(1, 1, 1, square(45, 10, 9), score=0.9), objects[0] | {"score": 0.8}]
    report = evaluate_detections(write_results(tmp_path / "r.json", results), truth)
    assert segm(report)["AP"] == 1.0


def test_empty_segmentations(truth: Path, tmp_path: Path) -> None:
    """`[]` and runs without a pixel, which others stumble over."""
    content = json.loads(truth.read_text())
    content["annotations"] += [entry(7, 1, 1, square(0, 0, 0)), entry(8, 1, 1, square(5, 5, 4))]
    content["annotations"][-1]["segmentation"] = []
    truth.write_text(json.dumps(content))
    report = evaluate_detections(write_results(tmp_path / "r.json", perfect(truth)[:3]), truth)
    assert [len(part.by_category) for part in report.parts] == [2]  # no mask for one: boxes alone


def test_base_and_novel(truth: Path, tmp_path: Path) -> None:
    """The cat found, the dogs not."""
    split = tmp_path / "split.json"
    split.write_text('[{"name": "cat", "base": true}, {"name": "dog", "base": false}]')
    results = write_results(tmp_path / "r.json", perfect(truth)[:1])
    figures = segm(evaluate_detections(results, truth, split=str(split)))
    assert (figures["AP base"], figures["AP novel"], figures["AP base+novel"]) == (1.0, 0.0, 0.5)
    assert "AP base" not in segm(evaluate_detections(results, truth))


def test_lvis_is_recognized_and_its_cap_applied(tmp_path: Path) -> None:
    more = {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    truth = write_coco(
        tmp_path / "lvis.json",
        [entry(1, 1, 1, square(5, 5, 20))],
        image=more,
        category={"frequency": "r"},
    )
    false = [entry(n, 1, 2, square(40, 5, 9), score=0.9) for n in range(300)]
    results = write_results(tmp_path / "r.json", [*false, perfect(truth)[0] | {"score": 0.1}])
    report = evaluate_detections(results, truth)
    assert (report.style, report.num_cut, segm(report)["APr"]) == ("lvis", 1, 0.0)
    assert segm(evaluate_detections(results, truth, style="coco"))["AP"] == 1.0


def test_lvis_rules_need_an_lvis_file(truth: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path / "r.json", [])
    with pytest.raises(InputError, match="needs neg_category_ids"):
        evaluate_detections(results, truth, style="lvis")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "KeyError: 'annotations'"),
        ("[1]", "expected an object, found 1"),
        ('[{"image_id": 1}]', "category_id"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "neither bbox nor segmentation"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]', "without score"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2], "score": 1}]', "is not \\[x, y"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": "x"}]', "no number"),
        ("", "Expecting"),
    ],
)
def test_broken_files(truth: Path, tmp_path: Path, content: str, message: str) -> None:
    results = tmp_path / "r.json"
    results.write_text(content)
    with pytest.raises(InputError, match=message):
        evaluate_detections(results, truth)


def test_missing_files(truth: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json: not a COCO file of detections: no such"):
        evaluate_detections(tmp_path / "nothing.json", truth)
