"""`ovsam eval prompted` end to end on a small model: protocols, baselines, going on, its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from coco_toys import HW, entry, square, write_coco
from PIL import Image
from scene_builders import write_scenes
from test_instance_store import write_sa1b
from typer.testing import Result

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.answering import Asker, iter_answers
from ovsam_cli.evaluation.detector_boxes import plan_boxes
from ovsam_cli.evaluation.instance_rows import ImageRow, InstanceRow
from ovsam_cli.evaluation.open_images import OpenImage
from ovsam_cli.evaluation.prompted import evaluate_prompted, load_labeller
from ovsam_cli.evaluation.prompted_metrics import describe_prompted
from ovsam_cli.evaluation.prompted_options import Baseline, PromptedRequest, plan_prompted
from ovsam_cli.labelling.journal_index import PREFIX_BYTES

Ovsam = Callable[..., Result]
NAMES = ("cat", "dog")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "scenes", names=NAMES)
    return tmp_path / "scenes"


@pytest.fixture
def evaluate(ovsam: Ovsam, checkpoint: Path, scenes: Path) -> Ovsam:
    """`ovsam eval prompted` on three scenes; further arguments go behind."""

    def run(out: Path, *more: str | Path) -> Result:
        fixed = ("--model", checkpoint, "--devices", "cpu", "--out", out)
        return ovsam("eval", "prompted", scenes, *fixed, *more)

    return run


def read_metrics(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads((out / "metrics.json").read_text())
    return found


def test_table_metrics_and_page(evaluate: Ovsam, tmp_path: Path) -> None:
    result = evaluate(tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "prompt: tight box of the true mask"
    assert lines[2].split()[:4] == ["mask", "IoU", "all", "6"]
    metrics = read_metrics(tmp_path / "out")
    assert metrics["estimates"]["top1 2 names|all"]["num_instances"] == 6
    assert str(tmp_path) not in (tmp_path / "out" / "metrics.json").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 12  # six objects, truth and answer
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_stopped_and_gone_on(checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    """The same figures, bit by bit, and no image is answered twice."""

    def request(name: str) -> PromptedRequest:
        return PromptedRequest(
            str(scenes), None, tmp_path / name, model=str(checkpoint), devices="cpu"
        )

    wanted = describe_prompted(evaluate_prompted(plan_prompted(request("whole"))))
    plan = plan_prompted(request("stopped"))
    with pytest.raises(KeyboardInterrupt):
        evaluate_prompted(plan, should_stop=lambda: True)
    calls: list[tuple[int, int]] = []
    report = evaluate_prompted(plan, on_images=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert json.dumps(describe_prompted(report)) == json.dumps(wanted)


@pytest.mark.parametrize("prompt", ["box", "points:2"])
@pytest.mark.parametrize("baseline", ["none", "image-crop"])
def test_batches_answer_as_single_images(
    checkpoint: Path, scenes: Path, tmp_path: Path, prompt: str, baseline: Baseline
) -> None:
    """Images encoded together, prompts of different images in one chunk; sizes differ, too."""
    Image.open(scenes / "images" / "2.png").convert("L").save(scenes / "images" / "2.png")

    def answer(size: int | None) -> list[InstanceRow]:
        out = tmp_path / f"out-{size}"
        request = PromptedRequest(
            *(str(scenes), None, out, prompt),
            model=str(checkpoint),
            devices="cpu",
            baseline=baseline,
            batch_size=size,
        )
        evaluate_prompted(plan_prompted(request))
        part = out / ".ovsam" / "part-00000.jsonl"
        lines = part.read_bytes().splitlines()
        rows = [ImageRow.from_json(line[PREFIX_BYTES:]) for line in lines]
        assert [one.record.file_name for one in rows] == ["1.png", "2.png", "3.png"]
        return [one for row in rows for one in row.instances]

    for found, wanted in zip(answer(2), answer(None), strict=True):
        assert (found.annotation_id, found.ranks) == (wanted.annotation_id, wanted.ranks)
        assert found.iou == pytest.approx(wanted.iou, abs=0.002)
        assert found.score == pytest.approx(wanted.score, rel=1e-4)


def test_images_that_do_not_fit_together(checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    """Batches are halved, then the prompts a call; what never fits ends the run."""
    request = PromptedRequest(
        *(str(scenes), None, tmp_path / "out"), model=str(checkpoint), devices="cpu", batch_size=3
    )
    plan = plan_prompted(request)
    said: list[str] = []
    _, labeller = load_labeller(plan, said.append)
    asker = Asker(labeller, plan.rule, None, labeller.work_sizes(said.append))
    tried = []

    def answer(batch: Sequence[OpenImage]) -> list[int]:
        tried.append(len(batch))
        if len(batch) > 1:
            raise RuntimeError("CUDA out of memory")
        return [len(one.instances) for one in batch]

    found = [one for batch in iter_answers(plan.source, range(3), asker, answer) for one in batch]
    assert [one for _, one in found] == [2, 2, 2]
    assert tried == [3, 1, 1, 1] and "smaller steps" in said[-1]

    def never(batch: Sequence[OpenImage]) -> list[int]:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(iter_answers(plan.source, range(3), asker, never))
    assert asker.sizes.prompts == 1


def test_other_settings_are_refused(evaluate: Ovsam, tmp_path: Path) -> None:
    assert evaluate(tmp_path / "out").exit_code == 0
    result = evaluate(tmp_path / "out", "--prompt", "point")
    assert result.exit_code == 2
    assert "options.prompt: was" in result.stderr
    assert evaluate(tmp_path / "out", "--prompt", "point", "--restart").exit_code == 0


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        (["--prompt", "point"], "pixel deepest inside the true mask, Euclidean distance"),
        (["--prompt", "point", "--click", "reference"], "centre of the true mask by the published"),
        (["--prompt", "points:3"], "3 random pixels of the true mask (seed 0)"),
        (["--prompt", "random-point", "--seed", "4"], "1 random pixel of the true mask (seed 4)"),
        (["--baseline", "feature-crop"], "tight box"),
        (["--baseline", "image-crop", "--prompt", "point"], "pixel deepest"),
    ],
)
def test_prompts_and_baselines(evaluate: Ovsam, tmp_path: Path, more: list[str], rule: str) -> None:
    result = evaluate(tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    assert rule in result.stdout
    assert "top-1 of 2 names" in result.stdout


def test_shapes_need_no_model(ovsam: Ovsam, scenes: Path, tmp_path: Path) -> None:
    """A bar fills its box; a disc fills the ellipse in it."""
    for baseline in ("box-fill", "ellipse"):
        out = tmp_path / baseline
        result = ovsam("eval", "prompted", scenes, "--baseline", baseline, "--out", out)
        assert result.exit_code == 0, result.output
    boxes, ellipses = (
        read_metrics(tmp_path / name)["estimates"] for name in ("box-fill", "ellipse")
    )
    assert boxes["iou|all"]["mean"] > 0.85
    assert ellipses["iou|all"]["mean"] == pytest.approx((0.95 + 0.79) / 2, abs=0.05)


def test_paper_protocol(evaluate: Ovsam, tmp_path: Path) -> None:
    """Both variants of CLIP's box, and the numbers without the split's other names."""
    split = tmp_path / "split.json"
    split.write_text('[{"name": "cat", "base": true}, {"name": "dog", "base": false}]')
    result = evaluate(
        tmp_path / "out", "--protocol", "paper", "--split", split, "--prompt", "point"
    )
    assert result.exit_code == 0, result.output
    protocol = read_metrics(tmp_path / "out")["protocol"]
    assert protocol["accuracies"] == ["2 names, boxes as shipped", "2 names, boxes scaled"]
    assert protocol["prompt_rule"] == (
        "centre of the true mask by the published code's approximate distance"
    )


def test_paper_protocol_on_coco(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    """COCO's 80 names: only the 65 count, and Table 1 stands beside ours."""
    write_mini_coco(tmp_path / "coco")
    result = ovsam(
        *("eval", "prompted", tmp_path / "coco", "--protocol", "paper", "--devices", "cpu"),
        *("--model", checkpoint, "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    assert "Open-Vocabulary SAM, published" in result.stdout
    line = next(line for line in result.stdout.splitlines() if "published" in line)
    assert line.split()[-3:] == ["81.5", "84.0", "84.3"]
    metrics = read_metrics(tmp_path / "out")
    assert [*metrics["protocol"]["accuracies"]] == [
        *("65 names, boxes as shipped", "65 names, boxes scaled"),
        *("80 names, boxes as shipped", "80 names, boxes scaled"),
    ]
    assert metrics["data"]["num_instances"] == 2  # the banner is neither base nor novel


def write_mini_coco(folder: Path) -> None:
    """A person (base), a dog (novel) and a parking meter (neither) in one image, as COCO has it."""
    names = [one["name"] for one in read_coco_categories()]
    objects = [
        entry(n, 1, names.index(name) + 1, square(20 * n, 5, 15))
        for n, name in enumerate(("person", "dog", "parking meter"), 1)
    ]
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    write_coco(
        folder / "annotations" / "instances_val2017.json", objects, num_images=1, names=names
    )
    Image.new("RGB", HW[::-1], (90, 60, 30)).save(folder / "val2017" / "1.jpg")


def read_coco_categories() -> list[dict[str, str]]:
    path = Path(__file__).parents[2] / "vocabularies" / "coco.json"
    categories: list[dict[str, str]] = json.loads(path.read_text())["categories"]
    return categories


def test_sa1b_has_masks_alone(ovsam: Ovsam, checkpoint: Path, tmp_path: Path) -> None:
    folder = write_sa1b(tmp_path / "sa")
    Image.new("RGB", HW[::-1]).save(folder / "sa_1.jpg")
    fixed = ("--model", checkpoint, "--devices", "cpu", "--out", tmp_path / "out")
    result = ovsam("eval", "prompted", folder, *fixed)
    assert result.exit_code == 0, result.output
    assert "mask IoU" in result.stdout and "top-1" not in result.stdout
    again = ovsam("eval", "prompted", folder, *fixed, "--vocab", "cat,")
    assert again.exit_code == 2 and "SA-1B has masks without names" in again.stderr


@pytest.mark.parametrize("kind", ["sa1b", "coco"])
def test_data_without_objects(ovsam: Ovsam, tmp_path: Path, kind: str) -> None:
    """Exit code 5 and a line, no table of no rows; JSON has null where there is no number."""
    data = tmp_path / "data"
    if kind == "sa1b":
        content = json.loads((write_sa1b(data) / "sa_1.json").read_text()) | {"annotations": []}
        (data / "sa_1.json").write_text(json.dumps(content))
    else:
        write_scenes(data, num_images=1, names=NAMES)
        objects = [entry(1, 1, 1, square(5, 5, 0))]  # a mask without pixels
        write_coco(data / "instances.json", objects, num_images=1, names=NAMES)
        (data / "images" / "1.png").rename(data / "images" / "1.jpg")
    arguments = ("eval", "prompted", data, "--baseline", "ellipse", "--out", tmp_path / "out")
    result = ovsam(*arguments)
    assert result.exit_code == 5, result.output
    assert "no object was found in 1 image: nothing" in result.stdout
    assert "interval" not in result.stdout
    assert read_metrics(tmp_path / "out")["data"]["num_instances"] == 0
    again = ovsam(*arguments, "--json")
    assert again.exit_code == 5, again.output
    assert json.loads(again.stdout)["commonest_name"] is None


def test_images_that_fail_are_named(evaluate: Ovsam, scenes: Path, tmp_path: Path) -> None:
    (scenes / "images" / "2.png").write_text("no image")
    Image.new("RGB", (9, 9)).save(scenes / "images" / "3.png")
    result = evaluate(tmp_path / "out")
    assert result.exit_code == 3
    assert "not an image" in result.stderr and "its annotations are of" in result.stderr
    assert read_metrics(tmp_path / "out")["data"]["num_failed"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prompt", "circle"], "expected box, point, random-point, or points:K"),
        (["--prompt", "points:0"], "1 to 64"),
        (["--click", "reference"], "--prompt box has none"),
        (["--click", "exact", "--prompt", "points:3"], "--prompt points:3 has none"),
        (["--click", "reference", "--prompt", "random-point"], "leave out --click"),
        (["--click", "reference", "--boxes", "x.json"], "leave out --protocol, --baseline and"),
        (["--protocol", "paper"], "needs base and novel names"),
        (["--vocab", "zebra,"], "none of its names is one of"),
        (["--boxes", "x.json", "--protocol", "paper"], "leave out --protocol"),
        (["--images", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_input(evaluate: Ovsam, tmp_path: Path, more: list[str], message: str) -> None:
    result = evaluate(tmp_path / "out", *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_missing_images(scenes: Path, tmp_path: Path) -> None:
    (scenes / "images" / "2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images are missing; the first.*2\.png"):
        plan_prompted(PromptedRequest(str(scenes), None, tmp_path / "out"))


def test_grid(ovsam: Ovsam, checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    """Recall of the automatic mode; run again it changes nothing."""
    arguments = ("eval", "grid", scenes, "--model", checkpoint, "--grid", "3")
    for _ in range(2):
        result = ovsam(*arguments, "--devices", "cpu", "--out", tmp_path / "out")
        assert result.exit_code == 0, result.output
        assert "masks in 3 images" in result.stdout and "AR@1000" in result.stdout
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["recall"]["AR@100"] <= metrics["recall"]["AR@1000"]


def test_boxes_that_are_left_out(scenes: Path, tmp_path: Path) -> None:
    """Each under its own reason; those of an image without objects stay: they are wrong there."""
    content = json.loads((scenes / "instances.json").read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
    (scenes / "instances.json").write_text(json.dumps(content))
    boxes = tmp_path / "boxes.json"
    box = {"category_id": content["categories"][0]["id"], "bbox": [5, 5, 20, 20], "score": 0.5}
    boxes.write_text(json.dumps([box | {"image_id": one} for one in (1, 2, 3, 3, 77)]))
    request = PromptedRequest(str(scenes), None, tmp_path / "out", max_images=2)
    plan = plan_boxes(request, boxes)
    assert [one["image_id"] for one in plan.boxes.objects] == [1, 2]
    assert [image.image_id for image in plan.truth.tables.images] == [1, 2]
    assert plan.boxes.left_out == {
        "of images beyond --max-images": 2,
        "of unknown images": 1,
    }


def test_boxes_of_a_detector(ovsam: Ovsam, checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    """Scores and names of the detector are kept; ours are counted beside them."""
    results = []
    for one in json.loads((scenes / "instances.json").read_text())["annotations"]:
        results.append(one | {"score": 0.5 + 0.05 * one["id"]})
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(results))
    result = ovsam(
        *("eval", "prompted", scenes, "--boxes", boxes, "--model", checkpoint),
        *("--devices", "cpu", "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "results-detector-names.json").read_text())
    assert {one["score"] for one in found} <= {one["score"] for one in results}
    assert "masks (detector's names)" in result.stdout and "masks (own names)" in result.stdout
