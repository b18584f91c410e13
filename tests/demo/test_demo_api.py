"""What the page asks: images, masks, names, the COCO file; and what is said of wrong questions."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from conftest import FakeTextEncoder, png
from PIL import Image

from ovsam_cli import masks
from ovsam_cli.demo.names import MAX_NAMES, choose_names
from ovsam_cli.demo.store import BoundedStore
from ovsam_cli.demo.uploads import clean_name
from ovsam_cli.errors import VocabularyError
from ovsam_cli.model.ovsam import OVSAM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def open_image(client, data: bytes | None = None, name: str = "photo.png") -> dict:
    answer = client.post("api/images", content=data or png(), headers={"X-File-Name": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(client, image: dict, **query) -> dict:
    names = client.get("api/state").json()["names"]["key"]
    answer = client.post(f"api/images/{image['id']}/label", json={"names": names, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_page_and_its_files_are_there(client) -> None:
    page = client.get("")
    assert page.status_code == 200 and "text/html" in page.headers["content-type"]
    for name in ("app.js", "stage.js", "masks.js", "panels.js", "api.js", "style.css"):
        assert name in page.text or client.get(f"static/{name}").status_code == 200
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    state = client.get("api/state").json()
    assert state["model"] == "small" and state["names"]["first"] == ["cat", "dog", "zebra"]
    for name in state["examples"]:
        picture = client.get(f"examples/{name}")
        assert Image.open(io.BytesIO(picture.content)).format == "JPEG"


def test_an_image_is_encoded_once_and_asked_many_times(client, monkeypatch) -> None:
    encodings = []
    encode = OVSAM.encode_images
    monkeypatch.setattr(
        OVSAM, "encode_images", lambda *given: encodings.append(1) or encode(*given)
    )
    image = open_image(client)
    assert (image["width"], image["height"], image["name"]) == (60, 40, "photo.png")
    for box in ([5, 5, 40, 30], [10, 10, 50, 35]):
        answer = ask(client, image, box=box)
        mask = masks.decode_mask(answer["segmentation"])
        assert mask.shape == (40, 60) and mask.mean() == pytest.approx(answer["area_share"])
        probabilities = [probability for _, probability in answer["names"]]
        assert len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True)
    ask(client, image, points=[[20, 20], [3, 3]], labels=[1, 0])
    assert open_image(client)["id"] == image["id"]  # opened twice: the same pixels
    assert len(encodings) == 1


def test_the_picture_is_upright(client) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "red").save(buffer, format="JPEG", exif=exif)
    image = open_image(client, buffer.getvalue())
    assert (image["width"], image["height"]) == (40, 60)
    picture = Image.open(io.BytesIO(client.get(f"api/images/{image['id']}/picture").content))
    assert picture.size == (40, 60)


def test_own_names(client) -> None:
    before = FakeTextEncoder.num_calls
    names = client.post("api/names", json={"text": "red fox, hen\nCamel,red  fox,"}).json()
    assert names["count"] == 3 and names["first"] == ["red fox", "hen", "Camel"]
    image = open_image(client)
    answer = client.post(
        f"api/images/{image['id']}/label", json={"names": names["key"], "box": [5, 5, 40, 30]}
    ).json()
    assert {name for name, _ in answer["names"]} == {"red fox", "hen", "Camel"}
    assert client.post("api/names", json={"text": "hen, red fox, Camel"}).status_code == 200
    assert FakeTextEncoder.num_calls == before + 1  # in another order: from the cache


def test_coco_file(client) -> None:
    image, other = open_image(client), open_image(client, png(seed=2), "other.png")
    found = [
        ask(client, image, box=[5, 5, 40, 30]),
        ask(client, image, points=[[9, 9]], labels=[1]),
    ]
    found.append(ask(client, other, box=[5, 5, 40, 30]))
    names = client.get("api/state").json()["names"]["key"]
    chosen = [one["names"][place][0] for one, place in zip(found, (0, 2, 1), strict=True)]
    objects = [{"id": one["id"], "name": n} for one, n in zip(found, chosen, strict=True)]
    answer = client.post("api/coco", json={"names": names, "objects": objects})
    assert "annotations.json" in answer.headers["content-disposition"]
    content = json.loads(answer.content)
    assert [one["file_name"] for one in content["images"]] == ["photo.png", "other.png"]
    assert [one["name"] for one in content["categories"]] == ["cat", "dog", "zebra"]
    by_id = {one["id"]: one["name"] for one in content["categories"]}
    for row, one in enumerate(content["annotations"]):
        assert by_id[one["category_id"]] == chosen[row]
        assert one["segmentation"] == found[row]["segmentation"] and one["iscrowd"] == 0
        assert one["score"] == pytest.approx(dict(found[row]["names"])[chosen[row]], rel=1e-5)
        assert one["area"] == masks.decode_mask(one["segmentation"]).sum()
    prompts = [one["attributes"]["prompt"] for one in content["annotations"]]
    assert prompts[0]["box"] == [5, 5, 40, 30] and prompts[1]["points"] == [[9, 9]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "no point on the object and no box"),
        ({"points": [[1, 1]], "labels": [0]}, "no point on the object"),
        ({"points": [[1, 1]], "labels": []}, "0 or 1 for each point"),
        ({"points": [[1, 1]], "labels": [2]}, "labels"),
        ({"points": [["a", 1]], "labels": [1]}, "points"),
        ({"box": [9, 9, 9, 20]}, "no area"),
        ({"box": [1, 2, 3]}, "box"),
        ({"points": [[1, 1]] * 65, "labels": [1] * 65}, "at most 64"),
    ],
)
def test_wrong_prompts_are_told_in_a_sentence(client, query: dict, message: str) -> None:
    names = client.get("api/state").json()["names"]["key"]
    image = open_image(client)
    answer = client.post(f"api/images/{image['id']}/label", json={"names": names, **query})
    assert answer.status_code == 422 and message in answer.json()["error"]


def test_what_is_gone_is_410(client) -> None:
    names = client.get("api/state").json()["names"]["key"]
    query = {"names": names, "box": [1, 1, 9, 9]}
    assert client.post("api/images/nothing/label", json=query).status_code == 410
    assert client.get("api/images/nothing/picture").status_code == 410
    image = open_image(client)
    query["names"] = "other"
    assert client.post(f"api/images/{image['id']}/label", json=query).status_code == 410
    coco = {"names": names, "objects": [{"id": "nothing", "name": "cat"}]}
    assert client.post("api/coco", json=coco).status_code == 410


def test_a_name_that_was_none_of_the_best_is_refused(client) -> None:
    found = ask(client, open_image(client), box=[5, 5, 40, 30])
    names = client.get("api/state").json()["names"]["key"]
    query = {"names": names, "objects": [{"id": found["id"], "name": "<b>"}]}
    assert client.post("api/coco", json=query).status_code == 422


def test_names_never_are_paths(tmp_path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("secret one\nsecret two\n")
    assert choose_names("", str(path)).names == (str(path),)
    with pytest.raises(VocabularyError, match="no vocabulary is called"):
        choose_names(str(path), "")
    with pytest.raises(VocabularyError, match="no name in the list"):
        choose_names("", " , \n")
    with pytest.raises(VocabularyError, match="at most"):
        choose_names("", ",".join(map(str, range(MAX_NAMES + 1))))
    with pytest.raises(VocabularyError, match="too long"):
        choose_names("", "x" * 101)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a b.jpg", "a b.jpg"),
        ("\r\nSet-Cookie: x", "Set-Cookie x"),
        ("..", "image"),
        ("", "image"),
        ("<img onerror=1>.png", "img onerror=1.png"),
    ],
)
def test_names_of_uploads_are_made_harmless(given: str, kept: str) -> None:
    assert clean_name(given) == kept


def test_stores_are_bounded_in_number_and_bytes() -> None:
    store: BoundedStore[str] = BoundedStore(max_entries=3, max_bytes=100)
    for name in "abc":
        store.put(name, name, 10)
    assert store.get("a") == "a"
    store.put("d", "d", 10)
    assert store.get("b") is None and len(store) == 3
    store.put("e", "e", 85)
    assert store.get("a") is None and store.get("e") == "e" and store.num_bytes <= 100
    store.put("f", "f", 500)
    assert store.get("f") == "f" and len(store) == 1
    store.put("f", "g", 10)
    assert store.num_bytes == 10


def test_answers_stay_right_when_names_change(client) -> None:
    image = open_image(client)
    first = ask(client, image, box=[5, 5, 40, 30])
    own = client.post("api/names", json={"text": "hen, fox"}).json()
    query = {"names": own["key"], "objects": [{"id": first["id"], "name": first["names"][0][0]}]}
    content = json.loads(client.post("api/coco", json=query).content)
    assert [one["name"] for one in content["categories"]] == ["hen", "fox", first["names"][0][0]]
    assert content["annotations"][0]["category_id"] == 3
    assert np.isclose(content["annotations"][0]["score"], first["names"][0][1])
