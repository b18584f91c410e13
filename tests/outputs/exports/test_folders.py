"""Whole folders: an export appears at once, replaces only exports, and leaves nothing behind."""

from __future__ import annotations

import os

import pytest

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.outputs.files import write_whole_folder


def write(path, text="new", **options):
    with write_whole_folder(path, **options) as folder:
        (folder / "a.txt").write_text(text)
        assert not (path / "a.txt").exists() or text == "new"


def test_appears_whole(tmp_path):
    write(tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path / "deep") == ["out"]


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").exists()


def test_other_files_are_never_removed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is there already and is no export"):
            write(tmp_path / "out", overwrite=overwrite)
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_an_export_is_replaced_when_asked(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        write(tmp_path / "out")
    (tmp_path / "out" / "old.txt").write_text("old")
    write(tmp_path / "out", overwrite=True)
    assert sorted(os.listdir(tmp_path / "out")) == [".ovsam-export", "a.txt"]


def test_what_fails_leaves_the_older_export(tmp_path):
    write(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), write_whole_folder(tmp_path / "out", overwrite=True):
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputError, match="cannot be written: No space"),
        write_whole_folder(tmp_path / "out", overwrite=True),
    ):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out" / "a.txt").exists()
