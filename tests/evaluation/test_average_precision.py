"""AP against pycocotools, and LVIS's rules against cases worked out by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovsam_cli.evaluation.average_precision import (
    CocoObject,
    OverlapKind,
    Truth,
    compute_precision,
    keep_best,
    summarize_coco,
    summarize_lvis,
)
from ovsam_cli.masks import encode_mask, mask_areas, mask_boxes
from ovsam_cli.structures import BoolArray

HW = (200, 260)


def disc(x: float, y: float, radius: float) -> BoolArray:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def make_object(
    number: int, image_id: int, category_id: int, mask: BoolArray, score: float = 1.0
) -> CocoObject:
    segmentation = encode_mask(mask)
    left, top, right, bottom = mask_boxes([segmentation])[0].tolist()
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, right - left, bottom - top],
        "area": float(mask_areas([segmentation])[0]),
        "iscrowd": 0,
        "segmentation": segmentation,
        "score": score,
    }


def make_random_set(seed: int) -> tuple[Truth, list[CocoObject]]:
    """20 images with objects of all sizes, crowds, equal scores, wrong names and misses."""
    rng = np.random.default_rng(seed)
    objects: list[CocoObject] = []
    found: list[CocoObject] = []
    for image_id in range(1, 21):
        for _ in range(int(rng.integers(0, 8))):
            category = int(rng.choice([1, 5, 7]))
            x, y, radius = rng.uniform(20, 230), rng.uniform(20, 180), rng.choice([6, 20, 60])
            one = make_object(len(objects) + 1, image_id, category, disc(x, y, radius))
            one["iscrowd"] = int(rng.random() < 0.1)
            objects.append(one)
            for _ in range(int(rng.integers(0, 4))):
                said = category if rng.random() < 0.8 else int(rng.choice([1, 5, 7]))
                x_off, y_off = rng.normal(0, radius / 6, 2)
                mask = disc(x + x_off, y + y_off, radius * rng.uniform(0.8, 1.2))
                score = float(np.round(rng.random(), 1))
                found.append(make_object(len(found) + 1, image_id, said, mask, score))
    return make_truth(objects, num_images=20, categories=(1, 5, 7, 9)), found


def make_truth(
    objects: list[CocoObject], *, num_images: int = 1, categories: tuple[int, ...] = (1, 2, 3)
) -> Truth:
    images = [{"id": n, "height": HW[0], "width": HW[1]} for n in range(1, num_images + 1)]
    rows = [{"id": n, "name": f"name {n}"} for n in categories]
    return Truth(tuple(images), tuple(rows), tuple(objects))  # type: ignore[arg-type]


def run_pycocotools(truth: Truth, found: list[CocoObject], kind: OverlapKind) -> np.ndarray:
    """The twelve figures, areas taken from what is compared."""
    # Where a result has both, `COCO.loadRes` takes the box's area for masks, too: APs, APm and APl
    # of masks would then differ from ours, which go by the mask's area.
    drop = {"id", "area", "segmentation" if kind == "bbox" else "bbox"}
    results = [{key: value for key, value in one.items() if key not in drop} for one in found]
    with contextlib.redirect_stdout(io.StringIO()):
        marked = COCO()
        marked.dataset = {
            "images": [*truth.images],
            "categories": [*truth.categories],
            "annotations": [{**one} for one in truth.objects],
        }
        marked.createIndex()
        run = COCOeval(marked, marked.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_twelve_figures_are_those_of_pycocotools(seed: int, kind: OverlapKind) -> None:
    truth, found = make_random_set(seed)
    if kind == "bbox":
        for one in found:
            one["area"] = one["bbox"][2] * one["bbox"][3]
    ours = summarize_coco(compute_precision(truth, found, kind))
    assert [*ours] == [
        *("AP", "AP50", "AP75", "APs", "APm", "APl"),
        *("AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl"),
    ]
    wanted = run_pycocotools(truth, found, kind)
    assert [*ours.values()] == pytest.approx([*wanted], abs=1e-12)
    assert 0.1 < wanted[0] < 0.9


def test_no_detection_at_all() -> None:
    truth, _ = make_random_set(0)
    assert set(summarize_coco(compute_precision(truth, [], "segm")).values()) == {0.0}


def test_no_object_at_all() -> None:
    found = [make_object(1, 1, 1, disc(50, 50, 20))]
    figures = summarize_coco(compute_precision(make_truth([]), found, "segm"))
    assert set(figures.values()) == {None}


def test_what_was_given_stays_as_it_was() -> None:
    truth, found = make_random_set(0)
    before = [{**one} for one in found]
    compute_precision(truth, found, "segm")
    assert found == before


def test_recall_of_masks_alone() -> None:
    """Without names a mask of the wrong category finds its object."""
    truth = make_truth([make_object(1, 1, 1, disc(50, 50, 20))])
    found = [make_object(1, 1, 2, disc(50, 50, 20))]
    named = compute_precision(truth, found, "segm")
    alone = compute_precision(truth, found, "segm", use_categories=False, limits=(100, 1000))
    assert (named.mean_recall(), alone.mean_recall(limit=100)) == (0.0, 1.0)


def test_categories_that_were_not_checked_do_not_count_in_lvis() -> None:
    """Image 1: a `1` and a false `2` beside it; only image 2 says that it has no `2`.

    COCO's AP of category 2 with its one object in image 2 found at a lower score: the false one
    comes first, so precision is 1/2 at all recalls. LVIS leaves the false one out: AP 1.
    """
    cat, other = disc(50, 50, 20), disc(200, 100, 30)
    objects = [make_object(1, 1, 1, cat), make_object(2, 2, 2, other)]
    found = [
        make_object(1, 1, 1, cat, 0.9),
        make_object(2, 1, 2, other, 0.8),
        make_object(3, 2, 2, other, 0.7),
    ]
    truth = make_lvis_truth(objects, negative={1: [], 2: []})
    coco = compute_precision(truth, found, "segm", style="coco")
    lvis = compute_precision(truth, found, "segm", style="lvis", limits=(300,))
    assert coco.by_category()[2] == pytest.approx(0.5)
    assert lvis.by_category()[2] == 1.0
    checked = make_lvis_truth(objects, negative={1: [2], 2: []})
    again = compute_precision(checked, found, "segm", style="lvis", limits=(300,))
    assert again.by_category()[2] == pytest.approx(0.5)


def test_too_many_where_not_all_are_marked_do_not_count_in_lvis() -> None:
    """A second `1` in an image whose `1`s are not all marked is neither right nor wrong."""
    objects = [make_object(1, 1, 1, disc(50, 50, 20))]
    found = [
        make_object(1, 1, 1, disc(200, 100, 30), 0.9),
        make_object(2, 1, 1, disc(50, 50, 20), 0.8),
    ]
    strict = make_lvis_truth(objects, negative={1: []})
    lenient = make_lvis_truth(objects, negative={1: []}, not_exhaustive={1: [1]})
    for truth, wanted in ((strict, 0.5), (lenient, 1.0)):
        table = compute_precision(truth, found, "segm", style="lvis", limits=(300,))
        assert table.mean_precision() == pytest.approx(wanted)


def test_frequencies() -> None:
    """Rare found, common missed, frequent absent from the images."""
    objects = [make_object(1, 1, 1, disc(50, 50, 20)), make_object(2, 1, 2, disc(200, 100, 30))]
    found = [make_object(1, 1, 1, disc(50, 50, 20), 0.9)]
    truth = make_lvis_truth(objects, negative={1: []})
    table = compute_precision(truth, found, "segm", style="lvis", limits=(300,))
    figures = summarize_lvis(table, {1: "r", 2: "c", 3: "f"})
    assert (figures["APr"], figures["APc"], figures["APf"]) == (1.0, 0.0, None)
    assert (figures["AP"], figures["AR@300"]) == (0.5, 0.5)


def test_at_most_so_many_an_image_over_all_categories() -> None:
    """The best by score, equals in their order; other images do not matter."""
    mask = disc(50, 50, 20)
    scores = [(1, 1, 0.5), (1, 2, 0.9), (1, 3, 0.5), (2, 1, 0.1)]
    found = [make_object(n, *one[:2], mask, one[2]) for n, one in enumerate(scores, 1)]
    assert [one["id"] for one in keep_best(found, 2)] == [2, 1, 4]


def test_lvis_cap_counts() -> None:
    """301 objects in one image: the one true object comes last by score, so it is cut."""
    objects = [make_object(1, 1, 1, disc(50, 50, 20))]
    false = [make_object(n, 1, 2, disc(200, 100, 9), 0.9) for n in range(1, 301)]
    found = [*false, make_object(301, 1, 1, disc(50, 50, 20), 0.1)]
    truth = make_lvis_truth(objects, negative={1: [2]})
    for objects_in, wanted in ((found, 1.0), (keep_best(found, 300), 0.0)):
        table = compute_precision(truth, objects_in, "segm", style="lvis", limits=(300,))
        assert table.by_category()[1] == wanted


def make_lvis_truth(
    objects: list[CocoObject],
    *,
    negative: dict[int, list[int]],
    not_exhaustive: dict[int, list[int]] | None = None,
) -> Truth:
    plain = make_truth(objects, num_images=len(negative))
    images = tuple(
        one
        | {
            "neg_category_ids": negative[one["id"]],
            "not_exhaustive_category_ids": (not_exhaustive or {}).get(one["id"], []),
        }
        for one in plain.images
    )
    categories = tuple(
        one | {"frequency": letter} for one, letter in zip(plain.categories, "rcf", strict=True)
    )
    return Truth(images, categories, plain.objects)  # type: ignore[arg-type]
