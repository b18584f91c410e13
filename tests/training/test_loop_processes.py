"""The loop in real processes: killed at any moment, stopped by a signal, two ranks."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training.test_loop import assert_same_runs
from training.toy_stage import stage_options, stage_parts, train_toy

from ovsam_cli.errors import DeviceError, InputError
from ovsam_cli.model.official_files import LAST_NAME
from ovsam_cli.training.distributed import ENVIRONMENT, Ranks, find_ranks, pick_device
from ovsam_cli.training.logs import LOG_NAME, SKIPPED_NAME, read_log

STAGE = Path(__file__).with_name("toy_stage.py")
STEPS = 24
PATIENCE = 180  # seconds: machines are busy


def start(folder: Path, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    """A process that trains in `folder`: STEPS ACCUMULATE WORKERS PAUSE."""
    command = [sys.executable, str(STAGE), str(folder), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the checkpoint has at least this step."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if torch.load(folder / LAST_NAME, weights_only=True)["step"] >= step:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[1]!r}")


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()


def train_whole(folder: Path) -> Path:
    """The same as the processes train, uninterrupted and in this process."""
    train_toy(stage_options(folder, STEPS, accumulate=2), *stage_parts())
    return folder


def kill(folder: Path, step: int, number: signal.Signals) -> None:
    """Train in a process and its worker, and end it at a random moment after `step`."""
    process = start(folder, STEPS, 2, 1, 0.03)
    wait_for_step(folder, step, process)
    time.sleep(random.Random(os.urandom(4)).uniform(0, 0.2))
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number, errors.decode()
    assert torch.load(folder / LAST_NAME, weights_only=True)["step"] < STEPS


def assert_never_interrupted(folder: Path, whole: Path) -> None:
    assert_same_runs(folder, whole)
    skipped = (whole / SKIPPED_NAME).read_bytes()
    assert (folder / SKIPPED_NAME).read_bytes() == skipped
    assert len(skipped.splitlines()) == 2


def test_killed_run_ends_as_if_never_interrupted(tmp_path: Path) -> None:
    """The kill hits any moment of a step, its checkpoint's writing too."""
    kill(tmp_path / "killed", 5, signal.SIGKILL)
    whole = train_whole(tmp_path / "whole")
    assert_never_interrupted(train_whole(tmp_path / "killed"), whole)


@pytest.mark.slow
def test_killed_twice_and_once_told_to_stop(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    for step, number in ((1, signal.SIGKILL), (6, signal.SIGTERM), (12, signal.SIGKILL)):
        kill(killed, step, number)
    finish(start(killed, STEPS, 2, 0, 0.0))
    assert_never_interrupted(killed, train_whole(tmp_path / "whole"))


def start_ranks(folder: Path, pause: float) -> list[subprocess.Popen[bytes]]:
    """Two ranks on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            folder,
            *(STEPS, 1, 0, pause),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in (0, 1)
    ]


def assert_like_one_rank(folder: Path, one: Path) -> None:
    """Weights, average and the log's means, to rounding; each skipped image once."""
    states = [torch.load(each / LAST_NAME, weights_only=True) for each in (folder, one)]
    assert states[0]["step"] == states[1]["step"] == STEPS
    for part in ("trained", "average"):
        for key, value in states[0][part].items():
            torch.testing.assert_close(value, states[1][part][key], rtol=1e-4, atol=1e-6)
    logs = [read_log(each / LOG_NAME) for each in (folder, one)]
    assert len(logs[0]) == len(logs[1]) == STEPS // 4 * 2
    for two, single in zip(*logs, strict=True):
        for name in set(single) - {"kind", "seconds", "images_per_second"}:
            assert two[name] == pytest.approx(single[name], rel=1e-3, abs=1e-6), name
    assert (folder / SKIPPED_NAME).read_bytes() == (one / SKIPPED_NAME).read_bytes()


def test_two_ranks_are_one_that_accumulates_twice(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path / "two", 0.0)
    one = train_whole(tmp_path / "one")
    for process in ranks:
        finish(process)
    assert_like_one_rank(tmp_path / "two", one)


@pytest.mark.slow
def test_signal_to_one_rank_stops_both_and_both_go_on(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path / "two", 0.1)
    wait_for_step(tmp_path / "two", 3, ranks[0])
    ranks[1].send_signal(signal.SIGTERM)
    for process in ranks:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGTERM, errors.decode()
    assert 3 < torch.load(tmp_path / "two" / LAST_NAME, weights_only=True)["step"] < STEPS
    for process in start_ranks(tmp_path / "two", 0.0):
        finish(process)
    assert_like_one_rank(tmp_path / "two", train_whole(tmp_path / "one"))


def test_four_processes_may_go_on_where_one_accumulated(tmp_path: Path) -> None:
    """Only the product of ranks and accumulation decides."""
    described = stage_options(tmp_path, 9, accumulate=4).describe(4)
    assert described == stage_options(tmp_path / "other", 9, accumulate=1).describe(4)
    assert described["batches_per_step"] == 4


def test_environment_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert find_ranks() == Ranks()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2, but LOCAL_RANK, MASTER_ADDR, MASTER_"):
        find_ranks()
    for name, value in (("LOCAL_RANK", "0"), ("MASTER_ADDR", "host"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert find_ranks() == Ranks(rank=1, world_size=2, local_rank=0)


def test_device_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto", Ranks()) == torch.device("cuda", 0)
    assert pick_device("cuda:1", Ranks()) == torch.device("cuda", 1)
    assert pick_device("auto", Ranks(1, 2, 1)) == torch.device("cuda", 1)
    assert pick_device("cpu", Ranks(1, 2, 1)) == torch.device("cpu")
    with pytest.raises(DeviceError, match="GPU 2 asked for, but PyTorch sees 2"):
        pick_device("cuda", Ranks(2, 3, 2))
    with pytest.raises(DeviceError, match="--device gpu: not a device"):
        pick_device("gpu", Ranks())
