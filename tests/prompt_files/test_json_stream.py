"""JSON by pieces gives what JSON at once gives, wherever the pieces are cut."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import pytest

from ovsam_cli.prompt_files.json_stream import JsonFileError, JsonStream, open_json
from ovsam_cli.prompts import read_prompts

CONTENT = {
    "a": [1, -2.5e-3, {"b": "]", "ü": '\\"\n😀'}, [], True, None, float("-inf")],
    "empty": [],
    "none": None,
    "number": 12345.75,
    "mapping": {"x": [2], "y": {"z": "a long text " * 5}},
}


def read_all(stream: JsonStream) -> dict[str, object]:
    found: dict[str, object] = {}
    for key in stream.iter_keys():
        found[key] = [*stream.iter_items()] if stream.peek() == "[" else stream.take()
    return found


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_document_by_pieces(chunk_bytes: int, encoding: str) -> None:
    for indent in (None, 1):
        text = "  " + json.dumps(CONTENT, indent=indent, ensure_ascii=False) + "\n"
        stream = JsonStream(io.BytesIO(text.encode(encoding)), chunk_bytes=chunk_bytes)
        scalars = {key: None if isinstance(v, list | dict) else v for key, v in CONTENT.items()}
        assert stream.walk() == scalars
        assert read_all(stream) == CONTENT


@pytest.mark.parametrize(
    "text",
    ["", "[1 2]", "[1,]", "[1", "{", '{"a" 1}', "{1: 2}", '{"a": 1,}', '{"a": "x', "[tru]", "{} 3"],
)
@pytest.mark.parametrize("chunk_bytes", [1, 1000])
def test_other_texts_are_refused(text: str, chunk_bytes: int) -> None:
    with pytest.raises(JsonFileError):
        JsonStream(io.BytesIO(text.encode()), chunk_bytes=chunk_bytes).walk()


@pytest.mark.parametrize("chunk_bytes", [1, 5, 1000])
def test_faults_are_placed(chunk_bytes: int) -> None:
    text = '{"a": [1,\n  2],\n "b": [3,\n\n 4 x]}' + " " * 50
    with pytest.raises(JsonFileError) as fault:
        JsonStream(io.BytesIO(text.encode()), chunk_bytes=chunk_bytes).walk()
    assert (fault.value.line, fault.value.column) == (5, 4)


def test_a_pipe_is_read_too(tmp_path: Path) -> None:
    """As in `--prompts <(zcat prompts.json.gz)`."""
    os.mkfifo(tmp_path / "pipe")
    content = json.dumps({"images": {"a.jpg": {"boxes": [[1, 2, 30, 40]] * 2}}})
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(content,))
    writer.start()
    with open_json(tmp_path / "pipe") as stream:
        assert stream.walk() == {"images": None}
        assert read_all(stream) == json.loads(content)
    writer.join()


def test_annotations_may_come_before_the_images(tmp_path: Path) -> None:
    """As in LVIS."""
    images = [{"id": 3, "file_name": "a.jpg", "width": 80, "height": 60}]
    boxes = [{"id": 7, "image_id": 3, "bbox": [1, 2, 10, 20]}]
    for content in (
        {"info": {}, "images": images, "annotations": boxes},
        {"annotations": boxes, "images": images},
    ):
        (tmp_path / "p.json").write_text(json.dumps(content))
        source = read_prompts(str(tmp_path / "p.json"))
        assert source.table.prompt_ids == (7,)
        assert source.table.boxes_xyxy.tolist() == [[1, 2, 11, 22]]
        assert source.table.declared_hw.tolist() == [[60, 80]]
