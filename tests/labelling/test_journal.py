"""The journal: rows exact, crashes survived, other settings refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from result_builders import assert_same_result, failed_result, make_result, with_predicted_iou

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.labelling import journal_rows
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.journal import FlushPolicy, Journal
from ovsam_cli.labelling.journal_index import read_run
from ovsam_cli.labelling.journal_part import PartWriter
from ovsam_cli.labelling.journal_rows import iter_result_json, result_from_json, result_to_json
from ovsam_cli.labelling.run_folder import prepare_output
from ovsam_cli.structures import ImageRecord

FINGERPRINT = Fingerprint("a" * 64, "b" * 64, "c" * 64, "0.1.0", {"min_score": 0.1, "grid": None})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    prepare_output(folder).release()
    return folder


def part_of(out: Path) -> Path:
    return out / ".ovsam" / "part-00000.jsonl"


def write_part(out: Path, content: bytes) -> None:
    part_of(out).unlink()  # a new file: cutting an old one short makes some file systems wait
    part_of(out).write_bytes(content)


@pytest.mark.parametrize(
    "result",
    [
        make_result(1, 5),
        make_result(2, 0),
        make_result(3, 1, hw=(1, 1)),
        failed_result(),
        with_predicted_iou(make_result(4, 3)),
    ],
    ids=["objects", "empty", "one pixel", "failed", "predicted IoU"],
)
def test_row_round_trip_is_exact(result):
    line = result_to_json(result)
    assert_same_result(result_from_json(line), result)
    assert result_to_json(result_from_json(line)) == line
    assert line.isascii() and b"\n" not in line


def test_rows_say_nothing_of_a_predicted_iou_that_is_not_there():
    assert b"iou_predictions" not in result_to_json(make_result())
    assert b'"iou_predictions":[0.3,0.655,1.01]' in result_to_json(
        with_predicted_iou(make_result())
    )


@pytest.mark.parametrize("num_objects", [255, 256, 257, 600])
def test_large_rows_come_in_pieces_of_the_same_line(out, monkeypatch, num_objects):
    """The row of an image of thousands of objects was built whole, in four copies."""
    result = make_result(1, num_objects)
    line = result_to_json(result)
    assert line == json.dumps(json.loads(line), separators=(",", ":")).encode()
    monkeypatch.setattr(journal_rows, "PIECE_BYTES", 1000)
    pieces = list(iter_result_json(result))
    assert len(pieces) > 5 and b"".join(pieces) == line
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(result)
        journal.append(make_result(2))
        assert_same_result(next(journal.iter_results()), result)
    assert len(read_run(out)) == 2


def test_prompts_without_points_keep_their_shape():
    result = make_result(1, 2)
    prompts = replace(
        result.detections.prompts,
        point_coords=np.zeros((2, 0, 2), np.float32),
        point_labels=np.zeros((2, 0), np.int64),
    )
    result = replace(result, detections=replace(result.detections, prompts=prompts))
    assert_same_result(result_from_json(result_to_json(result)), result)


@pytest.mark.parametrize(
    "column", ["scores", "margins", "stability_scores", "iou_predictions", "boxes_xyxy"]
)
def test_nan_never_gets_into_the_journal(column):
    found = with_predicted_iou(make_result()).detections
    values = getattr(found, column).copy()
    values.flat[0] = np.nan
    with pytest.raises(ValueError, match="JSON compliant"):
        result_to_json(replace(make_result(), detections=replace(found, **{column: values})))


def test_results_come_in_image_id_order_whatever_the_order_of_work(out):
    with Journal.open(out, FINGERPRINT) as journal:
        for image_id in (3, 1, 2):
            journal.append(make_result(image_id))
        assert [result.record.image_id for result in journal.iter_results()] == [1, 2, 3]
        assert journal.finished == {"dir/1.jpg", "dir/2.jpg", "dir/3.jpg"}


def test_continued_run_keeps_rows_and_the_later_row_of_an_image_counts(out):
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(failed_result(1))
        journal.append(make_result(2))
    with Journal.open(out, FINGERPRINT) as journal:
        assert journal.num_recovered == 2
        assert journal.index.file_names("failed") == {failed_result(1).record.file_name}
        journal.append(replace(make_result(1), record=failed_result(1).record))
        assert journal.index.file_names("failed") == frozenset()
        assert [result.status for result in journal.iter_results()] == ["ok", "ok"]


def test_present_records_give_ids_and_order(out):
    """A folder that grew between two runs shifts the ids of images already labelled."""
    with Journal.open(out, FINGERPRINT) as journal:
        for image_id in (1, 2):
            journal.append(make_result(image_id))
        names = ["dir/0.jpg", "dir/1.jpg", "dir/2.jpg"]
        records = [ImageRecord(Path("/moved") / name, name, i + 1) for i, name in enumerate(names)]
        assert [result.record for result in journal.iter_results(records)] == records[1:]


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing to disk takes milliseconds and changes nothing that a test could see."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.usefixtures("no_sync")
def test_torn_at_every_byte_loses_only_the_torn_row(out):
    results = [make_result(1, 1), failed_result(2), make_result(3, 0)]
    with Journal.open(out, FINGERPRINT) as journal:
        for result in results:
            journal.append(result)
    whole = part_of(out).read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(len(whole) + 1):
        write_part(out, whole[:cut])
        assert len(read_run(out)) == sum(end <= cut for end in ends)


@pytest.mark.usefixtures("no_sync")
def test_run_goes_on_after_a_cut_at_every_byte_of_a_row(out):
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(make_result(1, 1))
        journal.append(failed_result(2))
    whole = part_of(out).read_bytes()
    for cut in range(whole.index(b"\n"), len(whole)):
        write_part(out, whole[:cut])
        with Journal.open(out, FINGERPRINT) as journal:
            assert journal.num_recovered == (cut > whole.index(b"\n"))
            if not journal.num_recovered:
                journal.append(make_result(1, 1))
            journal.append(failed_result(2))
        assert part_of(out).read_bytes() == whole


@pytest.mark.usefixtures("no_sync")
def test_a_flipped_byte_costs_one_row_wherever_it_is(out):
    with Journal.open(out, FINGERPRINT) as journal:
        for image_id in (1, 2, 3):
            journal.append(make_result(image_id, 0))
    whole = part_of(out).read_bytes()
    for place in range(0, len(whole), 13):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        write_part(out, bytes(damaged))
        assert len(read_run(out)) in (1, 2)  # 1: a line's end became another character
        with Journal.open(out, FINGERPRINT) as journal:
            assert journal.num_recovered in (1, 2)
            found = [result.record.image_id for result in journal.iter_results()]
            assert set(found) < {1, 2, 3}


def test_damage_before_good_rows_is_counted(out):
    with Journal.open(out, FINGERPRINT) as journal:
        for image_id in (1, 2):
            journal.append(make_result(image_id, 0))
    whole = part_of(out).read_bytes()
    part_of(out).write_bytes(whole[:20] + b"?" + whole[21:])
    with Journal.open(out, FINGERPRINT) as journal:
        assert journal.index.num_damaged_lines == 1
        assert journal.finished == {"dir/2.jpg"}


def test_changed_settings_are_named_and_refused_until_restart(out):
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(make_result(1))
    other = replace(FINGERPRINT, weights_sha256="d" * 64, options={"min_score": 0.2, "top_k": 5})
    with pytest.raises(InputError) as caught:
        Journal.open(out, other)
    message = str(caught.value)
    assert "options.min_score: was 0.1, now 0.2" in message
    assert "options.grid: was null, now not set" in message
    assert "options.top_k: was not set, now 5" in message
    assert 'weights: was "aaa' in message and "--restart" in message and str(out) in message
    assert "vocabulary" not in message
    with Journal.open(out, FINGERPRINT) as journal:  # the refusal changed nothing
        assert journal.num_recovered == 1
    with Journal.open(out, other, restart=True) as journal:
        assert journal.num_recovered == 0
    with pytest.raises(InputError, match="other settings"):
        Journal.open(out, FINGERPRINT)


def test_settings_equal_as_json_are_equal(out):
    with Journal.open(out, replace(FINGERPRINT, options={"a": (1, 2), "b": {"x": 1.0}})):
        pass
    with Journal.open(out, replace(FINGERPRINT, options={"b": {"x": 1.0}, "a": [1, 2]})):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other", "settings": {}}'])
def test_damaged_manifest_names_itself_and_the_remedy(out, text):
    (out / ".ovsam" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json.*--restart"):
        Journal.open(out, FINGERPRINT)
    with Journal.open(out, FINGERPRINT, restart=True):
        pass


def test_row_that_did_not_fit_is_taken_back(out, monkeypatch):
    """A full disk stops in the middle of a line; what follows must not stand on that line."""
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(make_result(1))
        file = journal._part._file

        class FullDisk:
            closed = False

            def write(self, line):
                return file.write(line[:30])

            def __getattr__(self, name):
                return getattr(file, name)

        journal._part._file = FullDisk()
        with pytest.raises(OutputError, match=r"part-00000\.jsonl.*No space left.*MB free"):
            journal.append(make_result(2))
        journal._part._file = file
        journal.append(make_result(3))
    with Journal.open(out, FINGERPRINT) as journal:
        assert journal.finished == {"dir/1.jpg", "dir/3.jpg"}
        assert journal.index.num_damaged_lines == 0


def test_rows_survive_without_close(out):
    """As after kill -9: nothing may wait in a buffer of the process."""
    journal = Journal.open(out, FINGERPRINT, flush=FlushPolicy(num_images=1000, seconds=1000))
    journal.append(make_result(1))
    assert len(read_run(out)) == 1
    journal.close()
    journal.close()


def test_sync_follows_the_policy(out, monkeypatch):
    synced = []
    with Journal.open(out, FINGERPRINT, flush=FlushPolicy(num_images=2, seconds=1000)) as journal:
        monkeypatch.setattr("os.fsync", synced.append)
        for image_id in range(1, 6):
            journal.append(make_result(image_id, 0))
        assert len(synced) == 2
    assert len(synced) == 3


def test_parts_of_several_workers_are_read_together(out):
    with Journal.open(out, FINGERPRINT) as journal:
        journal.append(make_result(2, 0))
        paths = [journal.begin_part(), journal.begin_part()]
        for image_id, path in enumerate(paths, start=3):
            part = PartWriter(path)
            part.append(make_result(image_id, 0))
            part.close()
        for path in paths:
            journal.index.read_part(path)
        assert journal.finished == {"dir/2.jpg", "dir/3.jpg", "dir/4.jpg"}
    assert [r.record.image_id for r in read_run(out).iter_results()] == [2, 3, 4]
    assert len(list((out / ".ovsam").glob("part-*"))) == 3


def test_an_image_labelled_again_stands_behind_its_old_row(out):
    """Written to the first part again, the new row lost against an old one of a later part."""
    with Journal.open(out, FINGERPRINT) as journal:
        part = PartWriter(journal.begin_part())
        part.append(replace(make_result(1, 0), status="failed", detections=None))
        part.close()
    with Journal.open(out, FINGERPRINT) as journal:
        assert journal.failed == {"dir/1.jpg"}
        journal.append(make_result(1, 0))
    with Journal.open(out, FINGERPRINT) as journal:
        assert journal.failed == frozenset()


def test_a_part_that_another_process_still_writes_to_is_left_alone(out):
    with Journal.open(out, FINGERPRINT):
        pass
    code = (
        "import sys, pathlib\nfrom ovsam_cli.labelling.journal_part import PartWriter\n"
        f"part = PartWriter(pathlib.Path({str(out / '.ovsam' / 'part-00000.jsonl')!r}))\n"
        "print('open', flush=True)\nsys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout.readline() == b"open\n"
        with Journal.open(out, FINGERPRINT) as journal:
            journal.append(make_result(1, 0))
            assert [size > 0 for _, size in journal.list_parts()] == [False, True]


def test_reading_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        read_run(tmp_path)


def test_manifest_is_readable_json(out):
    with Journal.open(out, FINGERPRINT):
        pass
    manifest = json.loads((out / ".ovsam" / "manifest.json").read_text())
    assert manifest["settings"]["options.min_score"] == 0.1
    assert not list((out / ".ovsam").glob(".*.tmp"))
