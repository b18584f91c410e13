"""Bundled vocabularies, the user's own, and the names made for the text tower."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovsam_cli.errors import VocabularyError
from ovsam_cli.vocabulary import (
    BUNDLED_NAMES,
    Vocabulary,
    clean_names,
    normalize_name,
    read_vocabulary,
    reference_names,
    resolve_trained_names,
)

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = json.loads((GOLDEN / "text_reference.json").read_text())
NUM_CATEGORIES = {
    "coco": 80, "lvis": 1203, "imagenet1k": 1000, "in21k": 21841, "objects365": 365,
    "openimages": 601, "ade20k": 150, "voc": 20, "demo": 257,
}  # fmt: skip


@pytest.fixture(scope="module")
def bundled() -> dict[str, Vocabulary]:
    return {name: read_vocabulary(name) for name in BUNDLED_NAMES}


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_bundled_vocabularies(name: str, bundled: dict[str, Vocabulary]) -> None:
    vocabulary = bundled[name]
    assert vocabulary.name == name
    assert len(vocabulary) == NUM_CATEGORIES[name]
    assert vocabulary.source and vocabulary.licence
    assert len(set(map(normalize_name, vocabulary.names))) == len(vocabulary)
    assert all(normalize_name(text) == text for text in vocabulary.text_names)


def test_coco_keeps_official_ids_and_splits(bundled: dict[str, Vocabulary]) -> None:
    coco = bundled["coco"]
    assert coco.ids[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)
    assert coco.ids[-1] == 90
    assert "clothes" in coco.categories[0].synonyms
    assert np.bincount(coco.benchmark_kinds()).tolist() == [15, 48, 17]
    assert {"bus", "cat", "airplane"} <= {c.name for c in coco.categories if c.base is False}


def test_lvis_keeps_official_names(bundled: dict[str, Vocabulary]) -> None:
    lvis = bundled["lvis"]
    assert lvis.ids == tuple(range(1, 1204))
    assert lvis.names[654] == "speaker_(stero_equipment)"
    assert lvis.categories[654].synonyms == ("speaker (stereo equipment)", "speaker")
    assert [sum(c.frequency == f for c in lvis.categories) for f in "rcf"] == [337, 461, 405]
    assert np.bincount(lvis.benchmark_kinds()).tolist() == [0, 866, 337]
    by_name = {category.name: category.synonyms for category in lvis.categories}
    assert by_name["tape_(sticky_cloth_or_paper)"] == ("tape (sticky cloth or paper)", "tape")
    # two bows: the bare word would be a tie, so neither has it
    assert by_name["bow_(weapon)"] == ("bow (weapon)",)
    assert by_name["monitor_(computer_equipment) computer_monitor"] == (
        "monitor (computer equipment)", "computer monitor", "monitor",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "recorded"), [("lvis", "protos_LVISV1Dataset"), ("coco", "protos_CocoOVDataset")]
)
def test_reference_naming_equals_the_recorded_one(name: str, recorded: str) -> None:
    vocabulary, wanted = read_vocabulary(name, "reference"), REFERENCE[recorded]
    counts = [len(category.synonyms) for category in vocabulary.categories]
    assert (len(counts), max(counts), sum(counts)) == (
        wanted["classes"], wanted["max"], wanted["total"],
    )  # fmt: skip
    found = {category.synonyms for category in vocabulary.categories}
    assert {tuple(names) for _, names in wanted["examples"]} <= found


@pytest.mark.parametrize(("listed", "wanted"), REFERENCE["split"].items(), ids=str)
def test_reference_split(listed: str, wanted: list[str]) -> None:
    assert list(reference_names(listed)) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("traffic_light", ("traffic light",)),
        ("tape_(sticky_cloth_or_paper)", ("tape (sticky cloth or paper)",)),
        ("cornbread_or_polenta", ("cornbread", "polenta")),
        ("Cabinet/shelf", ("cabinet", "shelf")),
        ("bed ", ("bed",)),
        ("red or green apple", ("red or green apple",)),
        ("a/", ("a",)),
        ("file_(tool, for_metal) rasp", ("file (tool, for metal)", "rasp")),
        ("a) b/c", ("a) b", "c")),
        ("/", ("/",)),
    ],
)
def test_clean_names(name: str, wanted: tuple[str, ...]) -> None:
    assert clean_names(name) == wanted


def test_in21k_has_distinct_names_and_texts_that_tell_homonyms_apart(
    bundled: dict[str, Vocabulary],
) -> None:
    cranes = [c for c in bundled["in21k"].categories if c.name.startswith("crane")]
    assert len({category.name for category in cranes}) == len(cranes) >= 2
    assert len({category.synonyms for category in cranes}) == len(cranes)


def test_joined_vocabularies_keep_every_name_once(bundled: dict[str, Vocabulary]) -> None:
    joined = read_vocabulary("in21k+lvis")
    assert 21_900 < len(joined) < 21_841 + 1203
    assert joined.ids == tuple(range(1, len(joined) + 1))
    assert len({normalize_name(name) for name in joined.names}) == len(joined)
    assert "WordNet" in joined.licence and "LVIS" in joined.licence


def test_voc_joined_with_coco_takes_voc_spelling() -> None:
    names = read_vocabulary("voc+coco").names
    assert "dog" in names and names.count("dog") == 1
    assert names[:20] == read_vocabulary("voc").names


def test_demo_covers_two_hundred_names_in_plain_words(bundled: dict[str, Vocabulary]) -> None:
    names = bundled["demo"].names
    assert len(names) >= 200
    assert not any("_" in name or "(" in name for name in names)
    assert {"bat", "traffic light", "truck", "cat"} <= set(names)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(
        "\ufeff# my things\ncat, kitty , Kitten\n\n  Traffic_Light  # at crossings\nC#\nÉclair\n",
        encoding="utf-8",
    )
    vocabulary = read_vocabulary(str(path))
    assert vocabulary.name == "mine"
    assert vocabulary.names == ("cat", "Traffic_Light", "C#", "Éclair")
    assert vocabulary.ids == (1, 2, 3, 4)
    assert vocabulary.categories[0].synonyms == ("cat", "kitty", "kitten")
    assert vocabulary.categories[1].synonyms == ("traffic light",)


def test_json_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(
        '{"categories": [{"id": 7, "name": "cup", "synonyms": ["coffee_mug"], "base": true},\n'
        '{"id": 3, "name": "a, b", "supercategory": "x", "frequency": "r"}]}'
    )
    vocabulary = read_vocabulary(str(path))
    assert vocabulary.ids == (7, 3)
    assert vocabulary.names == ("cup", "a, b")
    assert [c.synonyms for c in vocabulary.categories] == [("cup", "coffee mug"), ("a", "b")]
    assert [c.base for c in vocabulary.categories] == [True, None]
    assert vocabulary.categories[1].frequency == "r"


def test_json_list_of_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('["cat",\n "dog"]')
    assert read_vocabulary(str(path)).names == ("cat", "dog")


def test_inline() -> None:
    assert read_vocabulary("cat, red panda,zebra").names == ("cat", "red panda", "zebra")
    assert read_vocabulary("cat,").names == ("cat",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\ndog\nCat\n", r"mine\.txt:3: 'Cat' again, first at .*mine\.txt:1"),
        ("cat\n, kitty\n", r"mine\.txt:2: empty name"),
        ("cat\ndog,,hound\n", r"mine\.txt:2: empty name"),
        ("# nothing\n\n", r"mine\.txt: no category in it"),
    ],
)
def test_errors_of_text_files(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(VocabularyError, match=message):
        read_vocabulary(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["cat",\n"dog",\n"cat"]', r"mine\.json:3 \(category 3\): 'cat' again"),
        ('[\n{"name": "cat"},\n{"name": " "}]', r"mine\.json:3 \(category 2\): empty name"),
        ('[\n{"name": "cat", "id": 1},\n{"name": "a", "id": 1}]', r"json:3 .*: id 1 again"),
        ('[{"name": "cat", "id": 1},\n{"name": "a"}]', r"json:2 .*: no id, but other"),
        ('[{"name": "cat", "id": "1"}]', r"json:1 .*: id must be a whole number, found '1'"),
        ('[{"name": "cat", "id": true}]', r"id must be a whole number, found True"),
        ('[{"name": "cat", "base": 1}]', r"base must be true or false, found 1"),
        ('[{"name": "cat", "synonyms": "kitty"}]', r"synonyms must be a list of names"),
        ('[{"name": "cat", "synonyms": [""]}]', r"empty name"),
        ('[{"nam": "cat"}]', r"json:1 \(category 1\): expected a name or"),
        ("[3]", r"expected a name or .*, found 3"),
        ("[]", r"no category in it"),
        ('{"names": []}', r"expected a list of names, or"),
        ('["cat",\n]', r"mine\.json:2: not valid JSON"),
    ],
)
def test_errors_of_json_files(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(VocabularyError, match=message):
        read_vocabulary(str(path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cocoo", r"neither bundled \(coco, lvis, .*\) nor a \.txt or \.json file"),
        ("absent.txt", r"absent\.txt: cannot be read"),
        ("cat,,dog", r"name 2: empty name"),
        ("cat, dog, cat", r"name 3: 'cat' again"),
        ("", r"neither bundled"),
    ],
)
def test_errors_of_specs(spec: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        read_vocabulary(spec)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(VocabularyError, match="cannot be read as a UTF-8 text file"):
        read_vocabulary(str(path))


def test_kinds_by_normalized_name() -> None:
    vocabulary = read_vocabulary("Traffic Light, zebra, unicorn")
    assert vocabulary.kind_for(["traffic_light", "ZEBRA"]).tolist() == [1, 1, 2]
    assert vocabulary.kind_for([]).tolist() == [2, 2, 2]


def test_trained_names_by_reference() -> None:
    names = resolve_trained_names(["lvis:base", "quokka", "foo:bar"])
    assert "foo:bar" in names and "quokka" in names
    vocabulary = read_vocabulary("cat, bus_(vehicle), quokka, dollhouse")  # dollhouse: rare in LVIS
    assert vocabulary.kind_for(names).tolist() == [1, 1, 1, 2]


def test_hash_changes_with_anything_that_changes_results() -> None:
    hashes = {read_vocabulary(s).sha256() for s in ("cat, dog", "dog, cat", "cat, Dog", "cat,")}
    assert len(hashes) == 4
    assert read_vocabulary("cat, dog").sha256() == read_vocabulary("cat,dog").sha256()
