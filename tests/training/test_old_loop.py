"""The loop: a stopped run continues to the same weights, files are whole, the best is kept."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ovsam_cli.errors import CheckpointError
from ovsam_cli.training.old_loop import (
    BEST_NAME,
    CHECKPOINT_NAME,
    LOG_NAME,
    LoopOptions,
    Training,
)

EVERY_STEP = -1.0
ComputeLosses = Callable[[np.random.Generator, torch.Generator], Mapping[str, Tensor]]


class Stop(Exception):
    """A kill at an awkward moment."""


def make_training(options: LoopOptions) -> Training:
    torch.manual_seed(0)
    return Training(
        nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)), options
    )


@pytest.fixture
def options(tmp_path: Path) -> LoopOptions:
    return LoopOptions(
        folder=tmp_path / "run",
        max_steps=12,
        max_seconds=math.inf,
        warmup_steps=3,
        checkpoint_seconds=EVERY_STEP,
        validation_seconds=math.inf,
        log_steps=4,
    )


def make_step(module: nn.Module, stop_at: int = -1) -> ComputeLosses:
    """Losses on batches drawn from both generators; stops in the middle of call `stop_at`."""
    calls = 0

    def compute_losses(rng: np.random.Generator, generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal calls
        inputs = torch.from_numpy(rng.standard_normal((5, 6), np.float32))
        targets = torch.randn(5, 2, generator=generator)
        if calls == stop_at:
            raise Stop
        calls += 1
        outputs = module(inputs)
        return {"square": (outputs - targets).square().mean(), "size": outputs.abs().mean()}

    return compute_losses


def train(options: LoopOptions, stop_at: int = -1) -> Training:
    """A process that continues what the folder holds."""
    training = make_training(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    training.resume()
    training.run(make_step(training.module, stop_at))
    return training


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("stops", [[5], [0, 7]])
def test_resumed_run_ends_bit_exactly_where_an_uninterrupted_one_does(
    options: LoopOptions, tmp_path: Path, stops: list[int]
) -> None:
    whole = train(replace(options, folder=tmp_path / "whole"))
    for stop_at in stops:
        with pytest.raises(Stop):
            train(options, stop_at)
    resumed = train(options)
    assert resumed.step == whole.step == 12
    assert_same(resumed.module.state_dict(), whole.module.state_dict())
    assert_same(resumed.average, whole.average)
    assert resumed.rng.bit_generator.state == whole.rng.bit_generator.state
    assert torch.equal(resumed.generator.get_state(), whole.generator.get_state())


def test_finished_run_stays_as_it_is(options: LoopOptions) -> None:
    first = train(options)
    assert_same(train(options, stop_at=0).module.state_dict(), first.module.state_dict())


def test_same_seed_same_weights_other_seed_others(options: LoopOptions, tmp_path: Path) -> None:
    runs = [
        train(replace(options, folder=tmp_path / str(number), seed=seed))
        for number, seed in enumerate([1, 1, 2])
    ]
    states = [run.module.state_dict() for run in runs]
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


def test_checkpoint_appears_whole_or_not_at_all(
    options: LoopOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the checkpoint is written: the one before it is still there and complete."""
    with pytest.raises(Stop):
        train(options, stop_at=6)
    before = (options.folder / CHECKPOINT_NAME).read_bytes()

    def write_half(value: object, path: Path) -> None:
        Path(path).write_bytes(before[:100])
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", write_half)
        with pytest.raises(Stop):
            train(options)
    assert (options.folder / CHECKPOINT_NAME).read_bytes() == before
    assert train(options).step == 12


def test_checkpoint_is_replaced_at_once(
    options: LoopOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = []
    replace_file = os.replace

    def note(source: Path, target: Path) -> None:
        torch.load(source, weights_only=True)  # complete before it gets its name
        replaced.append(Path(target).name)
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", note)
    train(options)
    assert set(replaced) == {CHECKPOINT_NAME}


def test_nothing_to_resume(options: LoopOptions) -> None:
    assert make_training(options).resume() is False


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a file"])
def test_damaged_checkpoint(options: LoopOptions, content: bytes) -> None:
    options.folder.mkdir(parents=True)
    (options.folder / CHECKPOINT_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not a checkpoint.*--out"):
        make_training(options).resume()


def test_checkpoint_of_another_model(options: LoopOptions) -> None:
    train(options)
    other = Training(nn.Linear(3, 3), options)
    with pytest.raises(CheckpointError, match="not a checkpoint of this training"):
        other.resume()
    torch.save([1, 2], options.folder / CHECKPOINT_NAME)
    with pytest.raises(CheckpointError, match="not a checkpoint of this training"):
        other.resume()


def test_log_has_means_and_progress(options: LoopOptions) -> None:
    lines: list[Mapping[str, float]] = []
    training = make_training(options)
    options.folder.mkdir()
    training.run(lambda rng, generator: _count(training), None, lines.append)
    written = [json.loads(line) for line in (options.folder / LOG_NAME).read_text().splitlines()]
    assert written == lines
    assert [line["step"] for line in written] == [4, 8, 12]
    assert [line["count"] for line in written] == [1.5, 5.5, 9.5]
    assert written[-1]["progress"] == 1


def _count(training: Training) -> dict[str, Tensor]:
    """A loss whose value is the step's number."""
    weight = next(training.module.parameters())
    return {"count": weight.sum() * 0 + training.step}


def test_best_weights_are_kept(options: LoopOptions) -> None:
    """The last validation is worse: its weights do not replace the best ones."""
    scores = iter([0.2, 0.7, 0.4, *[0.3] * 20])
    seen: list[dict[str, Tensor]] = []

    def validate(average: Mapping[str, Tensor]) -> Mapping[str, float]:
        seen.append({key: value.clone() for key, value in average.items()})
        return {"score": next(scores)}

    training = make_training(replace(options, validation_seconds=EVERY_STEP))
    options.folder.mkdir()
    training.run(make_step(training.module), validate)
    assert len(seen) == 12
    assert_same(torch.load(options.folder / BEST_NAME, weights_only=True), seen[1])


def test_resumed_run_does_not_replace_better_weights(options: LoopOptions) -> None:
    """The checkpoint was older than the best score: after a stop worse weights replaced best.pt."""
    options = replace(options, validation_seconds=EVERY_STEP, checkpoint_seconds=math.inf)
    options.folder.mkdir()
    training = make_training(options)
    training.save()
    with pytest.raises(Stop):
        training.run(make_step(training.module, stop_at=1), lambda average: {"score": 0.9})
    best = (options.folder / BEST_NAME).read_bytes()
    resumed = make_training(options)
    resumed.resume()
    scores = iter(range(12))
    resumed.run(make_step(resumed.module), lambda average: {"score": 0.1 + 0.05 * next(scores)})
    assert (options.folder / BEST_NAME).read_bytes() == best


def test_time_ends_the_cosine_too(options: LoopOptions) -> None:
    training = make_training(replace(options, max_steps=10**9, max_seconds=100.0))
    training.seconds = 25.0
    assert training.progress() == 0.25
    training.seconds = 130.0
    assert training.progress() == 1


def test_only_matrices_decay_and_frozen_parts_are_left_out(options: LoopOptions) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    module[2].requires_grad_(False)
    matrices, others = Training(module, options).optimizer.param_groups
    assert matrices["weight_decay"] == options.weight_decay
    assert [id(one) for one in matrices["params"]] == [id(module[0].weight)]
    assert others["weight_decay"] == 0
    assert len(others["params"]) == 3
