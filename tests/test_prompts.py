"""Prompt files of every layout, and what is checked in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from builders import disc_mask, image_record

from ovsam_cli.errors import InputError
from ovsam_cli.masks import encode_mask
from ovsam_cli.prompts import PromptSource, read_prompts
from ovsam_cli.structures import Prompts

HW = (48, 64)


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def write_lines(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prompts_of(source: PromptSource, name: str = "a.jpg") -> Prompts:
    prompts, problems = source.for_image(image_record(name), HW)
    assert problems == ()
    return prompts


def test_our_layout(tmp_path: Path) -> None:
    mask = encode_mask(disc_mask())
    spec = write(
        tmp_path / "p.json",
        {
            "format": "ovsam-prompts",
            "coordinates": "absolute",
            "images": [
                {
                    "file_name": "a.jpg",
                    "prompts": [
                        {"id": 7, "points": [[5, 6], [7.5, 8]], "labels": [1, 0], "score": 0.5},
                        {"id": "cat", "box": [1, 2, 30, 40]},
                        {"id": 9, "mask": mask, "points": [[10, 11]], "box": [0, 0, 64, 48]},
                    ],
                },
                {"file_name": "x/b.jpg", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]},
                {"file_name": "c.jpg", "points": [[1, 2], [3, 4], [5, 6]]},
                {"file_name": "none.jpg", "prompts": []},
            ],
        },
    )
    source = read_prompts(spec)
    assert (source.num_images, source.num_prompts) == (4, 8)
    assert source.sha256 == hashlib.sha256(Path(spec).read_bytes()).hexdigest()
    prompts = prompts_of(source)
    assert prompts.prompt_ids == (7, "cat", 9)
    assert prompts.point_labels.tolist() == [[1, 0], [-1, -1], [1, -1]]
    assert prompts.point_coords[0].tolist() == [[5, 6], [7.5, 8]]
    assert prompts.has_box.tolist() == [False, True, True]
    assert prompts.boxes_xyxy[1].tolist() == [1, 2, 30, 40]
    assert prompts.masks == (None, None, mask)
    assert prompts.prompt_scores[0] == 0.5 and np.isnan(prompts.prompt_scores[1:]).all()
    boxes = prompts_of(source, "x/b.jpg")
    assert boxes.prompt_ids == (1, 2) and boxes.point_coords.shape == (2, 0, 2)
    assert prompts_of(source, "c.jpg").point_coords[:, 0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert len(prompts_of(source, "none.jpg")) == len(prompts_of(source, "other.jpg")) == 0


@pytest.mark.parametrize("layout", ["mapping", "images_mapping", "list", "lines", "header_lines"])
def test_equal_layouts(tmp_path: Path, layout: str) -> None:
    images = {"a.jpg": {"boxes": [[1, 2, 3, 4]]}, "b.jpg": {"points": [[5, 6]]}}
    rows: list[object] = [{"file_name": name, **entry} for name, entry in images.items()]
    header = {"format": "ovsam-prompts", "coordinates": "absolute"}
    if layout == "lines":
        spec = write_lines(tmp_path / "p.jsonl", rows)
    elif layout == "header_lines":
        spec = write_lines(tmp_path / "p.jsonl", [header, *rows])
    else:
        contents = {"mapping": images, "images_mapping": {**header, "images": images}, "list": rows}
        spec = write(tmp_path / "p.json", contents[layout])
    source = read_prompts(spec)
    assert source.table.file_names == ("a.jpg", "b.jpg")
    assert prompts_of(source).boxes_xyxy.tolist() == [[1, 2, 3, 4]]
    assert prompts_of(source, "b.jpg").point_coords.tolist() == [[[5, 6]]]


def test_an_image_may_stand_on_several_lines(tmp_path: Path) -> None:
    rows: list[object] = [
        {"file_name": "a.jpg", "boxes": [[1, 2, 3, 4]]},
        {"file_name": "b.jpg", "boxes": [[9, 9, 10, 10]]},
        {"file_name": "./a.jpg", "points": [[5, 6]]},
    ]
    prompts = prompts_of(read_prompts(write_lines(tmp_path / "p.jsonl", rows)))
    assert prompts.prompt_ids == (1, 2) and prompts.has_box.tolist() == [True, False]


def test_relative_coordinates(tmp_path: Path) -> None:
    content = {
        "coordinates": "relative",
        "images": {"a.jpg": {"boxes": [[0, 0.5, 0.25, 1]], "points": [[0.5, 0.5]]}},
    }
    prompts = prompts_of(read_prompts(write(tmp_path / "p.json", content)))
    assert prompts.boxes_xyxy[0].tolist() == [0, 24, 16, 48]
    assert prompts.point_coords[1, 0].tolist() == [32, 24]


COCO = {
    "images": [
        {"id": 3, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 5, "file_name": "b.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 11, "image_id": 3, "bbox": [1, 2, 10, 20], "category_id": 1, "iscrowd": 0},
        {"id": 12, "image_id": 5, "bbox": [0, 0, 5, 5], "category_id": 1},
        {"id": 13, "image_id": 3, "bbox": [3, 4, 5, 6], "score": 0.25},
    ],
    "categories": [],
}
RESULTS = [
    {"image_id": 3, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.9},
    {"image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.8},
    {"image_id": 3, "category_id": 2, "bbox": [3, 4, 5, 6], "score": 0.5, "id": 99},
]


def test_coco_dataset(tmp_path: Path) -> None:
    source = read_prompts(write(tmp_path / "instances.json", COCO))
    prompts = prompts_of(source)
    assert prompts.prompt_ids == (11, 13)
    assert prompts.boxes_xyxy.tolist() == [[1, 2, 11, 22], [3, 4, 8, 10]]
    assert np.isnan(prompts.prompt_scores[0]) and prompts.prompt_scores[1] == 0.25
    assert prompts_of(source, "b.jpg").prompt_ids == (12,)


def test_coco_results(tmp_path: Path) -> None:
    dataset = write(tmp_path / "instances.json", COCO)
    results = write(tmp_path / "results.json", RESULTS)
    source = read_prompts(f"{results}:{dataset}")
    assert prompts_of(source).prompt_ids == (1, 99)
    assert prompts_of(source).prompt_scores.tolist() == pytest.approx([0.9, 0.5])
    assert source.sha256 != read_prompts(dataset).sha256
    with pytest.raises(InputError, match=r"results\.json:\[0\]: a results list has no file names"):
        read_prompts(results)
    named = [{**row, "file_name": "a.jpg"} for row in RESULTS]
    assert prompts_of(read_prompts(write(tmp_path / "n.json", named))).prompt_ids == (1, 2, 99)
    shortened = {**COCO, "images": COCO["images"][:1]}
    with pytest.raises(InputError, match=r"results\.json:\[1\]: image_id 5 is not in the dataset"):
        read_prompts(f"{results}:{write(tmp_path / 'short.json', shortened)}")
    with pytest.raises(InputError, match=r"no\.json: cannot read the prompts"):
        read_prompts(f"{results}:{tmp_path}/no.json")


# --- matching


def source_of(tmp_path: Path, *names: str) -> PromptSource:
    images = {name: {"boxes": [[index, 0, 10, 10]]} for index, name in enumerate(names)}
    return read_prompts(write(tmp_path / "p.json", images))


def first_x(source: PromptSource, name: str) -> float | None:
    prompts = prompts_of(source, name)
    return float(prompts.boxes_xyxy[0, 0]) if len(prompts) else None


def test_last_part_of_the_name_is_enough_when_unique(tmp_path: Path) -> None:
    source = source_of(tmp_path, "train/a.jpg", "x/b.jpg", "y/b.jpg")
    assert first_x(source, "a.jpg") == first_x(source, "other/a.jpg") == 0
    assert first_x(source, "b.jpg") is None  # x/b.jpg or y/b.jpg
    assert first_x(source, "y/b.jpg") == 2
    records = [image_record("a.jpg"), image_record("y/b.jpg"), image_record("c.jpg")]
    assert source.unmatched(records) == ["x/b.jpg"]


def test_equal_names_go_before_equal_last_parts(tmp_path: Path) -> None:
    """`backup/a.jpg` once received the prompts of `a.jpg`."""
    records = [image_record("a.jpg"), image_record("backup/a.jpg")]
    source = source_of(tmp_path, "a.jpg").matched_to(records)
    assert first_x(source, "a.jpg") == 0 and first_x(source, "backup/a.jpg") is None


def test_a_name_that_could_mean_two_images(tmp_path: Path) -> None:
    records = [image_record("x/a.jpg"), image_record("y/a.jpg")]
    with pytest.raises(InputError, match=r"'a\.jpg' could mean 'x/a\.jpg' or 'y/a\.jpg'"):
        source_of(tmp_path, "a.jpg").unmatched(records)


# --- prompts that cannot be used


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"box": [10, 10, 10, 20]}, "has no area"),
        ({"box": [20, 10, 10, 20]}, "has no area"),
        ({"box": [float("nan"), 10, 10, 20]}, "not finite"),
        ({"box": [0, 0, float("inf"), 20]}, "not finite"),
        ({"box": [64, 10, 70, 20]}, "not in the image of 64 x 48"),
        ({"box": [-9, 10, -1, 20]}, "not in the image of 64 x 48"),
        ({"points": [[65, 10]]}, "point (65, 10) is not in the image of 64 x 48"),
        ({"points": [[5, 5], [5, float("nan")]]}, "point (5, nan) is not in the image"),
        ({"points": [[5, 5]], "labels": [0]}, "all points are background"),
        ({"mask": encode_mask(disc_mask(20, 20, center_yx=(5, 5)))}, "[20, 20] rows and columns"),
        ({"mask": encode_mask(np.zeros(HW, bool))}, "the mask is empty"),
    ],
)
def test_unusable_prompts_are_reported(
    tmp_path: Path, prompt: dict[str, object], message: str
) -> None:
    content = [{"file_name": "a.jpg", "prompts": [{"id": 5, "box": [1, 2, 30, 40]}, prompt]}]
    source = read_prompts(write(tmp_path / "p.json", content))
    prompts, problems = source.for_image(image_record(), HW)
    assert prompts.prompt_ids == (5,)
    (problem,) = problems
    assert (problem.prompt_id, problem.file_name, problem.dropped) == (2, "a.jpg", True)
    assert message in problem.message


def test_boxes_are_cut_to_the_image(tmp_path: Path) -> None:
    content = {"a.jpg": {"boxes": [[-5, 10, 20, 60], [0, 0, 64.6, 48]]}}
    source = read_prompts(write(tmp_path / "p.json", content))
    prompts, problems = source.for_image(image_record(), HW)
    assert prompts.boxes_xyxy.tolist() == [[0, 10, 20, 48], [0, 0, 64, 48]]
    assert [problem.prompt_id for problem in problems] == [1]  # 0.6 pixels are a rounding
    assert not problems[0].dropped and "was cut" in problems[0].message
    assert len(source.for_image(image_record(), HW)[1]) == 1  # the table was not changed


def test_negative_points_beside_a_box_are_fine(tmp_path: Path) -> None:
    entry = {"box": [1, 2, 30, 40], "points": [[5, 5]], "labels": [0]}
    source = read_prompts(write(tmp_path / "p.json", {"a.jpg": {"prompts": [entry]}}))
    assert len(prompts_of(source)) == 1


def test_other_image_size_is_noticed(tmp_path: Path) -> None:
    source = read_prompts(write(tmp_path / "p.json", COCO))
    prompts, problems = source.for_image(image_record(), (64, 48))
    assert len(prompts) == 2 and problems[0].prompt_id is None
    assert "64 x 48 pixels, the image has 48 x 64: check its EXIF" in problems[0].message
    assert "check its size" in source.for_image(image_record(), (96, 128))[1][0].message


# --- files that cannot be used

BOX = {"boxes": [[1, 2, 3, 4]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"p\.json:1: not valid JSON"),
        ("\n\n[1,]", r"p\.json:3: not valid JSON"),
        ("[]", "no prompts"),
        ("3", "expected an object, found 3"),
        ('{"a.jpg": 3}', r"p\.json:\['a\.jpg'\]: expected an object, found 3"),
        ('{"a.jpg": {}}', "an image needs 'prompts', 'boxes' or 'points'"),
        ('{"a.jpg": {"boxs": []}}', "unknown key 'boxs'; known: boxes"),
        ('{"format": "coco", "images": []}', "format is 'coco', expected 'ovsam-prompts'"),
        ('{"coordinates": "pixels", "images": []}', "coordinates are 'pixels'"),
        ('{"format": "ovsam-prompts"}', "images: expected a list, found None"),
        ('[{"boxes": [[1, 2, 3, 4]]}]', r"p\.json:\[0\]: file_name is None"),
        ('{"a.jpg": {"boxes": [1, 2, 3, 4]}}', r"boxes\[0\]: expected 4 numbers, found 1"),
        ('{"a.jpg": {"boxes": [[1, 2, 3]]}}', r"expected 4 numbers, found \[1, 2, 3\]"),
        ('{"a.jpg": {"boxes": [[1, 2, 3, "4"]]}}', "expected 4 numbers"),
        ('{"a.jpg": {"boxes": [[1, 2, 3, null]]}}', "expected 4 numbers"),
        ('{"a.jpg": {"points": [1, 2]}}', "expected 2 numbers, found 1"),
        ('{"a.jpg": {"prompts": [{}]}}', r"prompts\[0\]: a prompt needs a box, points or a mask"),
        ('{"a.jpg": {"prompts": [{"bbox": [1, 2, 3, 4]}]}}', r"'bbox'.*\[x0, y0, x1, y1\]"),
        ('{"a.jpg": {"prompts": [{"id": 1.5, "box": [1, 2, 3, 4]}]}}', r"id is 1\.5"),
        ('{"a.jpg": {"prompts": [{"id": true, "box": [1, 2, 3, 4]}]}}', "id is True"),
        (
            '{"a.jpg": {"prompts": [{"points": [[1, 2]], "labels": [1, 0]}]}}',
            r"labels are \[1, 0\], expected 1 of 1 or 0",
        ),
        ('{"a.jpg": {"prompts": [{"points": [[1, 2]], "labels": [2]}]}}', "expected 1 of 1 or 0"),
        ('{"a.jpg": {"prompts": [{"mask": {"size": [2, 2], "counts": "5"}}]}}', "do not fill"),
        (
            '{"a.jpg": {"prompts": [{"id": 1, "points": [[2, 3]]}, {"id": 1, "points": [[4,5]]}]}}',
            r"a\.jpg: prompt id 1 stands twice",
        ),
        ('{"a.jpg": {"boxes": [[0.1, 0.2, 0.3, 1]]}}', 'need "coordinates": "relative"'),
        (
            '{"coordinates": "relative", "images": {"a.jpg": {"boxes": [[1, 2, 30, 40]]}}}',
            "declared relative, but one is 40",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2}]}',
            "image_id 2",
        ),
        ('{"images": [{"id": 1}, {"id": 1}], "annotations": []}', "image id 1 stands twice"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}',
            r"annotations\[0\]\.bbox: expected a list, found None",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations":[{"image_id":1, "bbox":[1]}]}',
            r"\[1\] is not \[x, y, width, height\]",
        ),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(str(tmp_path / "p.json"))


def test_malformed_lines_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"file_name": "a.jpg", "boxes": [[1, 2, 3, 4]]}\n\n{"file')
    with pytest.raises(InputError, match=r"p\.jsonl:3: not valid JSON"):
        read_prompts(str(tmp_path / "p.jsonl"))
    write_lines(tmp_path / "p.jsonl", [{"file_name": "a.jpg", **BOX}, {"format": "ovsam-prompts"}])
    with pytest.raises(InputError, match=r"p\.jsonl:2: unknown key 'format'"):
        read_prompts(str(tmp_path / "p.jsonl"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: cannot read the prompts"):
        read_prompts(str(tmp_path / "no.json"))
    with pytest.raises(InputError, match=r"no\.jsonl: cannot read the prompts"):
        read_prompts(str(tmp_path / "no.jsonl"))
