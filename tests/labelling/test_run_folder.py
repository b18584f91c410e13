"""The output folder: foreign files are safe, one writer at a time, the dead do not block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.labelling.run_folder import LockOwner, RunLock, prepare_output

HOLDER = """
import sys, time
from pathlib import Path
from ovsam_cli.labelling.run_folder import prepare_output
lock = prepare_output(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def lock_file(out: Path) -> Path:
    return out / ".ovsam" / "lock.json"


def write_owner(out: Path, owner: LockOwner) -> None:
    prepare_output(out).release()
    lock_file(out).write_text(json.dumps(asdict(owner)))


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_new_empty_and_own_folders_are_taken(tmp_path):
    out = tmp_path / "a" / "b"
    prepare_output(out).release()
    (out / "annotations.json").write_text("{}")
    prepare_output(out).release()
    empty = tmp_path / "empty"
    (empty / "lost+found").mkdir(parents=True)
    prepare_output(empty).release()


def test_foreign_folder_is_refused_without_overwrite(tmp_path):
    for name in ("thesis.tex", "photo.jpg"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"'photo\.jpg' and 1 more.*--overwrite"):
        prepare_output(tmp_path)
    assert not (tmp_path / ".ovsam").exists()
    with prepare_output(tmp_path, overwrite=True):
        assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_output_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        prepare_output(tmp_path / "out", overwrite=True)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        prepare_output(tmp_path / "file" / "out")


def test_live_owner_is_named_within_a_second(tmp_path, holder):
    start = time.monotonic()
    with pytest.raises(OutputError, match=rf"process {holder.pid} on host .*another --out"):
        prepare_output(tmp_path / "out")
    assert time.monotonic() - start < 1


def test_killed_owner_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10  # not reaped yet: a zombie must not block either
    while True:
        try:
            with prepare_output(tmp_path / "out"):
                assert json.loads(lock_file(tmp_path / "out").read_text())["pid"] == os.getpid()
                return
        except OutputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_second_lock_of_one_process_is_refused_and_release_frees_it(tmp_path):
    with (
        prepare_output(tmp_path / "out"),
        pytest.raises(OutputError, match=rf"process {os.getpid()} on"),
    ):
        RunLock.acquire(tmp_path / "out")
    lock = prepare_output(tmp_path / "out")
    lock.release()
    lock.release()


def test_torn_lock_file_is_taken_over(tmp_path):
    write_owner(tmp_path / "out", LockOwner.current())
    lock_file(tmp_path / "out").write_text('{"host": "x", "pi')
    prepare_output(tmp_path / "out").release()


def test_reused_process_number_is_not_the_owner(tmp_path):
    write_owner(tmp_path / "out", replace(LockOwner.current(), started="1"))
    prepare_output(tmp_path / "out").release()


def test_owner_before_a_reboot_is_dead(tmp_path):
    write_owner(tmp_path / "out", replace(LockOwner.current(), boot_id="before"))
    prepare_output(tmp_path / "out").release()


def test_owner_in_another_container_of_this_machine_is_judged_by_the_record_lock(tmp_path):
    write_owner(tmp_path / "out", replace(LockOwner.current(), host="container"))
    prepare_output(tmp_path / "out").release()


def test_owner_on_another_machine_cannot_be_proved_dead(tmp_path):
    write_owner(tmp_path / "out", LockOwner("elsewhere", "other boot", 4, "5"))
    with pytest.raises(OutputError, match=r"process 4 on host elsewhere.*delete .*lock\.json"):
        prepare_output(tmp_path / "out")
    assert json.loads(lock_file(tmp_path / "out").read_text())["host"] == "elsewhere"
