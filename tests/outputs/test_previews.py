"""Preview pictures: everything drawn, labels inside the frame and apart, any image size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from result_builders import encode, failed_result, make_result

from ovsam_cli import masks
from ovsam_cli.errors import OutputError
from ovsam_cli.outputs.label_layout import LabelRequest, place_labels
from ovsam_cli.outputs.mask_paint import object_color
from ovsam_cli.outputs.previews import draw_preview, write_preview

# pycocotools 2.0 has not followed numpy 2's rule for __array__ yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = {1: "cat", 2: "a very long name of a thing that nobody would write", 3: "Jäger"}


def gray(hw: tuple[int, int]) -> np.ndarray:
    return np.full((*hw, 3), 128, np.uint8)


def result_with(*dense: np.ndarray):
    result = make_result(1, len(dense), hw=dense[0].shape)
    rles = tuple(encode(mask) for mask in dense)
    found = replace(
        result.detections,
        segmentations=rles,
        areas=masks.mask_areas(rles),
        boxes_xyxy=masks.mask_boxes(rles),
    )
    prompts = replace(found.prompts, point_labels=np.full((len(dense), 2), -1))
    prompts = replace(prompts, boxes_xyxy=np.full((len(dense), 4), np.nan, np.float32))
    return replace(result, detections=replace(found, prompts=prompts))


@pytest.mark.parametrize(
    ("hw", "size"),
    [
        ((480, 640), (900, 675)),
        ((1200, 1000), (1000, 1200)),
        ((1500, 2000), (1600, 1200)),
        ((1, 1), (900, 900)),
        ((1, 3000), (1600, 1)),
        ((2000, 30), (24, 1600)),
    ],
)
def test_any_image_size_gives_a_readable_picture(hw, size):
    picture = draw_preview(gray(hw), make_result(1, 3, hw=hw), NAMES)
    assert picture.size == size and picture.mode == "RGB"


def test_object_has_its_color_inside_and_on_its_edge_and_none_outside():
    mask = np.zeros((900, 900), bool)
    mask[300:600, 200:700] = True
    picture = np.asarray(draw_preview(gray((900, 900)), result_with(mask), NAMES)).astype(int)
    color = np.array(object_color(0))
    np.testing.assert_allclose(picture[300, 210:690], np.tile(color, (480, 1)), atol=3)
    fill = 0.42 * color + 0.58 * 128
    np.testing.assert_allclose(picture[310, 210:690], np.tile(fill, (480, 1)), atol=3)
    assert (picture[299, 210:690] < 128).all()  # the dark line around it
    assert (picture[:290] == 128).all() and (picture[610:] == 128).all()


def test_small_object_lies_on_a_large_one_whatever_the_order():
    small, large = np.zeros((2, 900, 900), bool)
    small[100:160, 100:160] = True
    large[50:850, 50:850] = True
    for dense in ((small, large), (large, small)):
        result = result_with(*dense)
        picture = np.asarray(draw_preview(gray((900, 900)), result, NAMES)).astype(int)
        index = 0 if dense[0] is small else 1
        np.testing.assert_allclose(picture[101, 120], object_color(index), atol=3)


def test_thin_object_stays_visible_when_the_image_is_shrunk():
    mask = np.zeros((40, 8000), bool)
    mask[20, 4001] = True
    picture = np.asarray(draw_preview(gray((40, 8000)), result_with(mask), NAMES))
    assert (picture != 128).any()


@pytest.mark.parametrize("count", [1, 70])
def test_crowded_pictures_are_drawn(count):
    result = make_result(1, count, hw=(300, 400))
    picture = np.asarray(draw_preview(gray((300, 400)), result, {}))
    assert (picture != 128).any()


def test_colors_of_neighbors_differ():
    colors = np.array([object_color(index) for index in range(12)], int)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=2)
    assert distance[~np.eye(12, dtype=bool)].min() > 40
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 150


@pytest.mark.parametrize("result", [failed_result(), make_result(1, 0)], ids=["failed", "empty"])
def test_image_without_objects_is_shown_alone(result):
    picture = draw_preview(gray((48, 64)), result, NAMES)
    assert (np.asarray(picture) == 128).all()


def test_prompts_are_marked():
    mask = np.zeros((900, 900), bool)
    mask[850:, :50] = True
    result = result_with(mask)
    found = result.detections
    prompts = replace(
        found.prompts,
        point_coords=np.array([[[700, 200], [800, 200]]], np.float32),
        point_labels=np.array([[1, 0]]),
        boxes_xyxy=np.array([[650, 400, 850, 800]], np.float32),
    )
    result = replace(result, detections=replace(found, prompts=prompts))
    picture = np.asarray(draw_preview(gray((900, 900)), result, NAMES)).astype(int)
    positive, negative = picture[202, 702], picture[202, 802]
    assert positive[1] > positive[0] + 50 and negative[0] > negative[1] + 50
    for x in (700, 800):  # the white sign in the middle
        assert picture[198:202, x - 2 : x + 2].min(axis=2).max() > 200
    edge = picture[400, 655:845]
    assert (edge != 128).any(axis=1).mean() > 0.9  # dashes, with dark between


def test_written_file_is_a_jpeg_and_equal_results_give_equal_bytes(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_preview(gray((48, 64)), make_result(1, 3), NAMES, tmp_path / name)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match=r"a\.jpg"):
        write_preview(gray((48, 64)), make_result(1, 0), NAMES, tmp_path / "no" / "a.jpg")


def request(x0: float, y0: float, x1: float, y1: float, size=(90, 16)) -> LabelRequest:
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    return LabelRequest(
        box_xyxy=(x0, y0, x1, y1),
        top_xy=(middle[0], y0),
        bottom_xy=(middle[0], y1),
        middle_xy=middle,
        left_x=x0,
        right_x=x1,
        area=(x1 - x0) * (y1 - y0),
        size_wh=size,
    )


def overlap(one, other, size=(90, 16)) -> bool:
    return abs(one.xy[0] - other.xy[0]) < size[0] and abs(one.xy[1] - other.xy[1]) < size[1]


def test_labels_stay_inside_the_frame_and_apart():
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 1, (40, 2)) * [620, 460]
    requests = [request(x, y, x + 20, y + 20) for x, y in corners]
    places = place_labels(requests, (640, 480), np.full((120, 160), -1), 3)
    for index, place in enumerate(places):
        assert 0 <= place.xy[0] <= 640 - 90 and 0 <= place.xy[1] <= 480 - 16
        assert not any(overlap(place, other) for other in places[:index])


def test_label_sits_close_above_a_lone_object_and_inside_a_large_one():
    nobody = np.full((120, 160), -1)
    (place,) = place_labels([request(300, 200, 340, 240)], (640, 480), nobody, 3)
    assert place.xy == (275, 181) and not place.is_detached
    (place,) = place_labels([request(100, 100, 500, 400)], (640, 480), nobody, 3)
    assert place.xy == (255, 242) and not place.is_detached


def test_label_of_a_large_object_leaves_small_ones_visible():
    owners = np.full((120, 160), 0)
    owners[55:70, 60:100] = 1  # a small object where the label would be
    requests = [request(100, 100, 500, 400), request(240, 220, 400, 280)]
    place = place_labels(requests, (640, 480), owners, 3)[0]
    x, y = place.xy
    assert (owners[y // 4 : (y + 16) // 4 + 1, x // 4 : (x + 90) // 4 + 1] == 0).all()


def test_label_larger_than_the_picture():
    (place,) = place_labels([request(2, 2, 8, 8)], (20, 10), np.full((3, 5), -1), 3)
    assert place.xy == (0, 0)
