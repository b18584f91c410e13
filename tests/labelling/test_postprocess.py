"""Logits to objects: scores, reasons for leaving out, the unknown name, the original frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from ovsam_cli import masks
from ovsam_cli.errors import ImageError
from ovsam_cli.labelling.postprocess import PostprocessOptions, crop_to_image, postprocess
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.structures import ImageGeometry, Prompts
from ovsam_cli.vocabulary import Category, Vocabulary

# pycocotools 2.0 has not followed numpy 2's rule for __array__ yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VOCABULARY = Vocabulary(
    "pets", tuple(Category(id, name, (name,)) for id, name in ((4, "cat"), (7, "dog"), (9, "fly")))
)
GEOMETRY = ImageGeometry(original_hw=(60, 90), input_hw=(171, 256), model_size=256)
KEEP_ALL = PostprocessOptions()


def prompts_of(count: int) -> Prompts:
    return Prompts(
        prompt_ids=tuple(f"p{row}" for row in range(count)),
        image_index=np.full(count, 3),
        point_coords=np.zeros((count, 1, 2), np.float32),
        point_labels=np.ones((count, 1), np.int64),
        boxes_xyxy=np.full((count, 4), np.nan, np.float32),
        masks=(None,) * count,
        prompt_scores=np.full(count, np.nan, np.float32),
    )


def blob(y: float, x: float, radius: float, *, sharpness: float = 4.0) -> torch.Tensor:
    """(1, 64, 64) logits, positive inside a disc of the padded model frame."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return (sharpness * (radius - ((rows - y) ** 2 + (columns - x) ** 2).sqrt()))[None]


def logits_of(*probabilities: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(probabilities).clamp(min=1e-30).log()


def run(mask_logits, class_logits, options=KEEP_ALL, ious=None):
    decoded, prompts = DecodedMasks(mask_logits, ious), prompts_of(len(mask_logits))
    return postprocess(decoded, class_logits, prompts, GEOMETRY, VOCABULARY, options)


BLOBS = torch.stack([blob(20, 20, 10), blob(10, 40, 4), blob(30, 50, 8)])
CLASSES = logits_of((0.6, 0.3, 0.1, 0), (0.1, 0.25, 0.2, 0.45), (0.3, 0.3, 0.35, 0.05))


def test_scores_margins_and_names():
    found = run(BLOBS, CLASSES).detections
    assert found.category_ids.tolist() == [4, 7, 9]
    np.testing.assert_allclose(found.scores, [0.6, 0.25, 0.35], rtol=1e-5)
    np.testing.assert_allclose(found.margins, [0.3, 0.05, 0.05], rtol=1e-4)
    assert [name for name, _ in found.topk[1]] == ["dog", "fly", "cat"]
    assert [score for _, score in found.topk[1]] == pytest.approx([0.25, 0.2, 0.1])
    assert found.topk[0][0][1] == pytest.approx(found.scores[0])
    assert found.prompt_ids == ("p0", "p1", "p2")
    assert found.prompts.image_index.tolist() == [0, 0, 0]


def test_masks_are_those_of_the_reference_chain():
    """Bilinear to the model's size, cut to the image, bilinear to the original, above 0."""
    resize = torch.nn.functional.interpolate
    large = resize(BLOBS, (256, 256), mode="bilinear")[..., :171, :256]
    expected = (resize(large, (60, 90), mode="bilinear") > 0)[:, 0].numpy()
    found = run(BLOBS, CLASSES).detections
    for row in range(3):
        rle = found.segmentations[row]
        np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), expected[row])
        assert found.areas[row] == expected[row].sum()
        x, y, width, height = coco_mask.toBbox(rle)
        assert found.boxes_xyxy[row].tolist() == [x, y, x + width, y + height]


def test_equal_names_keep_vocabulary_order():
    found = run(BLOBS, torch.zeros(3, 4)).detections
    assert [[name for name, _ in pairs] for pairs in found.topk] == [["cat", "dog", "fly"]] * 3
    assert found.category_ids.tolist() == [4, 4, 4]


def test_one_name_has_its_score_as_margin():
    vocabulary = Vocabulary("one", VOCABULARY.categories[:1])
    decoded = DecodedMasks(BLOBS, None)
    found = postprocess(
        decoded, torch.zeros(3, 2), prompts_of(3), GEOMETRY, vocabulary, KEEP_ALL
    ).detections
    np.testing.assert_allclose(found.margins, found.scores)
    assert all(len(pairs) == 1 for pairs in found.topk)


def test_top_k_limits_names():
    found = run(BLOBS, CLASSES, PostprocessOptions(top_k=1)).detections
    assert [len(pairs) for pairs in found.topk] == [1, 1, 1]
    np.testing.assert_allclose(found.margins, [0.3, 0.05, 0.05], rtol=1e-4)
    assert run(BLOBS, CLASSES, PostprocessOptions(top_k=0)).detections.topk == ((), (), ())


def test_low_scores_are_dropped_and_counted():
    found = run(BLOBS, CLASSES, PostprocessOptions(min_score=0.3))
    assert found.detections.prompt_ids == ("p0", "p2")
    assert found.num_dropped == {"low_score": 1}


def test_unknown_name_keeps_what_no_name_fits():
    """Below the limit, or less likely than the background, the mask stays without a name."""
    found = run(BLOBS, CLASSES, PostprocessOptions(min_score=0.5, unknown_category_id=99))
    assert found.detections.category_ids.tolist() == [4, 99, 99]
    assert found.num_dropped == {}
    found = run(BLOBS, CLASSES, PostprocessOptions(unknown_category_id=99))
    assert found.detections.category_ids.tolist() == [4, 99, 9]
    assert found.detections.scores[1] == pytest.approx(0.25)
    assert found.detections.topk[1][0][0] == "dog"


def test_empty_masks_are_never_written():
    in_padding = blob(55, 30, 6)  # the image ends at row 42.75
    nothing = torch.full((1, 64, 64), -5.0)
    found = run(torch.stack([BLOBS[0], nothing, in_padding]), CLASSES)
    assert found.detections.prompt_ids == ("p0",)
    assert found.num_dropped == {"empty_mask": 2}
    found = run(nothing[None], CLASSES[:1])
    assert len(found.detections) == 0 and found.num_dropped == {"empty_mask": 1}


def test_mask_smaller_than_an_original_pixel_is_empty():
    """A cell above zero can vanish between the pixels of a much smaller original."""
    logits = torch.full((1, 1, 64, 64), -100.0)
    logits[0, 0, 1, 1] = 1.0
    geometry = ImageGeometry(original_hw=(3, 4), input_hw=(192, 256), model_size=256)
    decoded = DecodedMasks(logits, None)
    found = postprocess(decoded, CLASSES[:1], prompts_of(1), geometry, VOCABULARY, KEEP_ALL)
    assert found.num_dropped == {"empty_mask": 1}


def test_stability_is_measured_inside_the_image():
    logits = blob(20, 20, 10)
    with_fringe = logits.clone()
    with_fringe[:, 43:] = 0.5  # undecided, but only in the padding
    found = run(torch.stack([logits, with_fringe]), CLASSES[:2]).detections
    assert found.stability_scores[0] == found.stability_scores[1]
    inside = logits[0, :43]
    expected = (inside > 1).sum() / (inside > -1).sum()
    assert found.stability_scores[0] == pytest.approx(expected.item())


def test_unstable_and_small_masks_are_dropped():
    vague = torch.stack([BLOBS[0], blob(20, 20, 10, sharpness=0.3)])
    found = run(vague, CLASSES[:2], PostprocessOptions(min_stability=0.8))
    assert found.detections.prompt_ids == ("p0",)
    assert found.num_dropped == {"low_stability": 1}
    areas = run(BLOBS, CLASSES).detections.areas
    found = run(BLOBS, CLASSES, PostprocessOptions(min_area=int(areas[2])))
    assert found.detections.prompt_ids == ("p0", "p2")
    assert found.num_dropped == {"small_area": 1}


def test_small_regions_are_removed():
    speckled = torch.maximum(blob(20, 20, 10), blob(38, 55, 2))
    whole = run(speckled[None], CLASSES[:1]).detections
    found = run(speckled[None], CLASSES[:1], PostprocessOptions(min_region=60)).detections
    only_disc = run(BLOBS[:1], CLASSES[:1]).detections
    assert whole.areas[0] > only_disc.areas[0]
    assert found.segmentations == only_disc.segmentations
    assert found.boxes_xyxy.tolist() == only_disc.boxes_xyxy.tolist()
    assert found.areas.tolist() == only_disc.areas.tolist()


def test_no_prompts():
    found = run(torch.zeros(0, 1, 64, 64), torch.zeros(0, 4))
    assert len(found.detections) == 0 and found.num_dropped == {}


def test_batch_equals_singles():
    together = run(BLOBS, CLASSES).detections
    for row in range(3):
        alone = run(BLOBS[row : row + 1], CLASSES[row : row + 1]).detections
        assert alone.segmentations[0] == together.segmentations[row]
        assert alone.scores[0] == together.scores[row]


def test_half_precision_logits():
    found = run(BLOBS.bfloat16(), CLASSES.bfloat16()).detections
    expected = run(BLOBS, CLASSES).detections
    assert found.category_ids.tolist() == expected.category_ids.tolist()
    assert (np.diag(masks.mask_iou(found.segmentations, expected.segmentations)) > 0.9).all()
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_fail_the_image(value):
    for which in range(2):
        tensors = [BLOBS.clone(), CLASSES.clone()]
        tensors[which].view(3, -1)[1, 2] = value
        with pytest.raises(ImageError, match="NaN or infinite") as caught:
            run(*tensors)
        assert caught.value.reason == "not_finite"


IOUS = torch.tensor([[0.9], [0.7], [1.02]])


def test_predicted_iou_stays_with_its_mask():
    found = run(BLOBS, CLASSES, PostprocessOptions(min_score=0.3), IOUS).detections
    assert found.prompt_ids == ("p0", "p2")
    assert found.iou_predictions.dtype == np.float32
    assert found.iou_predictions.tolist() == pytest.approx([0.9, 1.02])
    assert run(BLOBS, CLASSES).detections.iou_predictions is None


def test_masks_of_low_predicted_iou_are_dropped_where_it_is_predicted():
    options = PostprocessOptions(min_predicted_iou=0.88)
    found = run(BLOBS, CLASSES, options, IOUS)
    assert found.detections.prompt_ids == ("p0", "p2")
    assert found.num_dropped == {"low_predicted_iou": 1}
    assert run(BLOBS, CLASSES, options).num_dropped == {}


def test_predicted_iou_that_is_no_number_fails_the_image():
    with pytest.raises(ImageError, match="NaN or infinite IoU") as caught:
        run(BLOBS, CLASSES, KEEP_ALL, torch.tensor([[0.9], [float("nan")], [0.9]]))
    assert caught.value.reason == "not_finite"


def test_shapes_that_do_not_fit_are_our_mistake():
    with pytest.raises(ValueError, match="class_logits"):
        run(BLOBS, CLASSES[:, :3])
    with pytest.raises(ValueError, match="mask_logits"):
        run(BLOBS[:, 0], CLASSES)


def test_crop_to_image_keeps_partly_covered_cells():
    assert crop_to_image(np.zeros((2, 64, 64), np.float32), GEOMETRY).shape == (2, 43, 64)
    tall = replace(GEOMETRY, input_hw=(256, 1))
    assert crop_to_image(np.zeros((64, 64), np.float32), tall).shape == (64, 1)
