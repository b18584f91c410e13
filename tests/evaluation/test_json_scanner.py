"""JSON piece by piece gives what JSON at once gives."""

import json

import pytest

from ovsam_cli.evaluation.json_scanner import JsonScanner


def test_a_document_by_pieces() -> None:
    content = {"a": [1, {"b": "]"}, []], "empty": [], "none": None, "last": {"x": [2]}}
    for indent in (None, 1):
        scanner = JsonScanner("  " + json.dumps(content, indent=indent) + "\n")
        found: dict[str, object] = {}
        places = {}
        for key in scanner.iter_keys():
            places[key] = scanner.position
            is_list = isinstance(content[key], list)
            found[key] = [*scanner.iter_items()] if is_list else scanner.take()
        assert found == content
        scanner.position = places["a"]
        assert [*scanner.iter_items()] == content["a"]


@pytest.mark.parametrize("text", ["", "[1]", '{"a" 1}', "{1: 2}", '{"a": 1,}', '{"a": 1', "{"])
def test_other_texts_are_refused(text: str) -> None:
    scanner = JsonScanner(text)
    with pytest.raises(ValueError):
        for _ in scanner.iter_keys():
            scanner.take()


@pytest.mark.parametrize("text", ["{}", "[1 2]", "[1,]", "[1", "3"])
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        [*JsonScanner(text).iter_items()]
