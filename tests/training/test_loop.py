"""The loop: a stopped run continues to the same weights, files are whole, the best is kept."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training.toy_stage import CPU, ToyLosses, ToySource, judge, toy_options, train_toy

from ovsam_cli.errors import CheckpointError, DeviceError, InputError, OutputError
from ovsam_cli.model.official_files import BEST_NAME, LAST_NAME
from ovsam_cli.training.batches import SkippedImage, Validated
from ovsam_cli.training.checkpoints import StageFacts, load_trained_weights
from ovsam_cli.training.logs import BOARD_FOLDER, LOG_NAME, SKIPPED_NAME, LogLine, read_log
from ovsam_cli.training.loop import LoopOptions, train

TIMES = ("seconds", "images_per_second")


@pytest.fixture
def options(tmp_path: Path) -> LoopOptions:
    return toy_options(tmp_path / "run")


def assert_same(one: object, other: object, where: str = "") -> None:
    """Bit-equal, all the way down; times are left out."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor) and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys(), where
        for key in one:
            if key not in TIMES:
                assert_same(one[key], other[key], f"{where}/{key}")
    else:
        assert one == other, where


def assert_same_runs(one: Path, other: Path) -> None:
    """Checkpoints, best weights and logs."""
    for name in (LAST_NAME, BEST_NAME):
        states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        assert_same(states[0], states[1], name)
    logs = [read_log(folder / LOG_NAME) for folder in (one, other)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for first, second in zip(*logs, strict=True):
        assert_same(first, second, "log")


@pytest.mark.parametrize("workers", [0, 1])
def test_stopped_runs_end_where_an_uninterrupted_one_does(
    options: LoopOptions, tmp_path: Path, workers: int
) -> None:
    """Each call makes one step; the log has the same means and no line twice."""
    whole = replace(options, folder=tmp_path / "whole", accumulate=2, validation_steps=5)
    source = ToySource(bad=frozenset({7}), torn=frozenset({0, 9, 20}))
    train_toy(whole, source)
    parts = replace(whole, folder=options.folder, max_seconds=0.0, num_workers=workers)
    if workers:  # starting one costs
        train_toy(parts, source)
        parts = replace(parts, max_seconds=None)
    steps = []
    for _ in range(12):
        summary, _ = train_toy(parts, source)
        steps.append(summary.steps)
        if summary.is_finished:
            break
    assert steps == ([12] if workers else [*range(1, 13)])
    assert_same_runs(options.folder, whole.folder)
    skipped = (options.folder / SKIPPED_NAME).read_text()
    assert skipped == (whole.folder / SKIPPED_NAME).read_text()
    assert [json.loads(line)["index"] for line in skipped.splitlines()] == [0, 9, 20]


def test_run_killed_between_checkpoints_makes_its_steps_again(
    options: LoopOptions, tmp_path: Path
) -> None:
    """Lines of the log after the checkpoint are dropped, a torn one too."""
    whole = replace(options, folder=tmp_path / "whole")
    train_toy(whole)
    train_toy(replace(options, max_seconds=0.0))
    checkpoint = (options.folder / LAST_NAME).read_bytes()
    train_toy(options)
    (options.folder / LAST_NAME).write_bytes(checkpoint)
    with (options.folder / LOG_NAME).open("a") as file:
        file.write('{"kind": "train", "st')
    train_toy(options)
    assert_same_runs(options.folder, whole.folder)


def test_finished_run_stays_as_it_is(options: LoopOptions) -> None:
    summary, _ = train_toy(options)
    before = {path.name: path.read_bytes() for path in options.folder.glob("[a-z]*.*")}
    again, module = train_toy(options)
    assert again == summary and summary.is_finished and summary.steps == 12
    assert module.seen == []
    assert before == {path.name: path.read_bytes() for path in options.folder.glob("[a-z]*.*")}


def test_other_seed_other_weights(options: LoopOptions, tmp_path: Path) -> None:
    _, one = train_toy(options)
    _, other = train_toy(replace(options, folder=tmp_path / "other", seed=1))
    weights = [each.trained["out"].weight for each in (one, other)]
    assert not torch.equal(*weights)


def test_loss_falls_and_frozen_parts_stay(options: LoopOptions) -> None:
    module = ToyLosses(dropout=0.0)
    trunk = module.trunk.weight.clone()
    options = replace(options, max_steps=150, log_steps=50, average_decay=None)
    train_toy(options, module=module)
    losses = [line["square"] for line in read_log(options.folder / LOG_NAME)[:3]]
    assert float(losses[2]) < 0.6 * float(losses[0])
    assert torch.equal(module.trunk.weight, trunk)


def test_accumulation_is_the_mean_of_its_micro_batches(
    options: LoopOptions, tmp_path: Path
) -> None:
    """One step of two micro-batches moves the weights by the gradients' mean (plain Adam step)."""
    options = replace(options, max_steps=1, warmup_steps=0, gradient_clip=None, average_decay=None)
    module = ToyLosses(dropout=0.0)
    train_toy(replace(options, accumulate=2), module=module)
    assert module.seen == [0, 1]
    state = torch.load(options.folder / LAST_NAME, weights_only=True)["optimizer"]["state"]
    means = []
    for index in (0, 1):
        alone = replace(options, folder=tmp_path / str(index))
        train_toy(alone, _Shifted(index), ToyLosses(dropout=0.0))
        single = torch.load(alone.folder / LAST_NAME, weights_only=True)["optimizer"]["state"]
        means.append(single[2]["exp_avg"])
    # The noise of micro-batch 1 differs between the two runs, by 0.01 a value.
    torch.testing.assert_close(state[2]["exp_avg"], sum(means) / 2, rtol=0.2, atol=2e-3)


class _Shifted(ToySource):
    """Micro-batches from another start on."""

    def __init__(self, start: int) -> None:
        super().__init__()
        object.__setattr__(self, "seed", start)

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        return ToySource()[index + self.seed]


def test_not_finite_steps_are_skipped_and_counted(options: LoopOptions) -> None:
    lines: list[LogLine] = []
    source = ToySource(bad=frozenset({1, 2, 6}))
    module = ToyLosses()
    train(module, source, options, device=CPU, on_log=lines.append)
    assert [line.get("nonfinite_steps") for line in lines] == [2, 1, None]
    assert all(value.isfinite().all() for value in module.trained.state_dict().values())


def test_ten_bad_steps_in_a_row_end_the_run(options: LoopOptions) -> None:
    source = ToySource(bad=frozenset(range(2, 99)))
    with pytest.raises(InputError, match=r"step 12: .*10 steps in a row; lower the learning rate"):
        train_toy(replace(options, max_steps=99), source)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; so may tests be."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
def test_signal_finishes_the_step_saves_and_takes_its_course(
    options: LoopOptions, tmp_path: Path
) -> None:
    whole = replace(options, folder=tmp_path / "whole")
    train_toy(whole)

    def stop(step: int) -> None:
        if step == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(ToyLosses(), ToySource(), options, device=CPU, validate=judge, on_step=stop)
    assert torch.load(options.folder / LAST_NAME, weights_only=True)["step"] in (5, 6)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train_toy(options)
    assert_same_runs(options.folder, whole.folder)


@pytest.mark.usefixtures("usual_signals")
def test_ignored_signal_stays_ignored(options: LoopOptions) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    train(
        ToyLosses(),
        ToySource(),
        options,
        device=CPU,
        on_step=lambda step: signal.raise_signal(signal.SIGHUP),
    )
    assert torch.load(options.folder / LAST_NAME, weights_only=True)["step"] == options.max_steps
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("usual_signals")
def test_same_signal_again_acts_at_once(options: LoopOptions) -> None:
    """Another one does not: it is torchrun's answer to the first."""
    seen: list[int] = []

    def stop(step: int) -> None:
        seen.append(step)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        seen.append(-step)

    with pytest.raises(KeyboardInterrupt):
        train(ToyLosses(), ToySource(), options, device=CPU, on_step=stop)
    assert seen == [1]
    assert not (options.folder / LAST_NAME).exists()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_refusal_of_the_source_arrives_as_it_is(options: LoopOptions) -> None:
    """From a worker too, without the worker's traceback in its text."""
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^data: no image can be read; look at skipped"):
            train_toy(replace(options, num_workers=workers), ToySource(refused=2))


def test_best_weights_are_kept(options: LoopOptions) -> None:
    scores = iter([0.2, 0.7, 0.4])
    seen: list[dict[str, Tensor]] = []

    def validate(weights: Mapping[str, Tensor]) -> Validated:
        seen.append({key: value.clone() for key, value in weights.items()})
        skipped = (SkippedImage(Path("v.jpg"), "cut off"),) if len(seen) == 2 else ()
        return Validated({"score": next(scores), "top1": 0.5}, skipped)

    summary = train(
        ToyLosses(),
        ToySource(),
        replace(options, validation_steps=5),
        device=CPU,
        validate=validate,
    )
    assert summary.best_score == 0.7
    assert summary.checkpoint == options.folder / BEST_NAME
    assert_same(load_trained_weights(summary.checkpoint), seen[1])
    assert_same(load_trained_weights(options.folder / LAST_NAME), seen[2])
    rows = read_log(options.folder / LOG_NAME)
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [5, 10, 12]
    assert read_log(options.folder / SKIPPED_NAME) == [
        {"index": 9, "path": "v.jpg", "reason": "cut off"}
    ]


@pytest.mark.parametrize(("every", "fails_at"), [(0, 12), (4, 8), (4, 12)])
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_validation_that_a_kill_took_is_made_up_for(
    options: LoopOptions, tmp_path: Path, every: int, fails_at: int, where: str
) -> None:
    """It decides which checkpoint is best; killed in it, or when its line was in the log."""
    options = replace(options, validation_steps=every, checkpoint_seconds=0.0)
    whole = replace(options, folder=tmp_path / "whole")
    train_toy(whole)

    class Killed(Exception):
        pass

    def validate(weights: Mapping[str, Tensor]) -> Validated:
        step = torch.load(options.folder / LAST_NAME, weights_only=True)["step"]
        if step == fails_at and where == "before":
            raise Killed
        return judge(weights)

    def on_log(line: LogLine) -> None:
        if line["kind"] == "validation" and line["step"] == fails_at and where == "after":
            raise Killed

    stage = (ToyLosses(), ToySource(), options)
    with pytest.raises(Killed):
        train(*stage, device=CPU, validate=validate, on_log=on_log)
    assert torch.load(options.folder / LAST_NAME, weights_only=True)["step"] == fails_at
    summary, module = train_toy(options)
    assert len(module.seen) == 12 - fails_at
    assert summary.is_finished and summary.checkpoint == options.folder / BEST_NAME
    assert_same_runs(options.folder, whole.folder)


def test_average_follows_the_weights(options: LoopOptions) -> None:
    _, module = train_toy(options)
    average = load_trained_weights(options.folder / LAST_NAME)
    last = module.trained.state_dict()
    assert average.keys() == last.keys()
    assert not torch.equal(average["out.weight"], last["out.weight"])
    torch.testing.assert_close(average["out.weight"], last["out.weight"], rtol=0, atol=0.1)


def test_half_precision_trains_float32_weights(options: LoopOptions) -> None:
    _, module = train_toy(replace(options, precision="bfloat16"))
    assert {value.dtype for value in module.trained.parameters()} == {torch.float32}
    (row,) = {row["step"] for row in read_log(options.folder / LOG_NAME) if row["step"] == 12}
    assert row == 12


def test_two_runs_on_one_folder(options: LoopOptions) -> None:
    def start_again(step: int) -> None:
        train_toy(options)

    with pytest.raises(OutputError, match="run"):
        train(ToyLosses(), ToySource(), options, device=CPU, on_step=start_again)


def test_failures_of_the_machine_say_what_to_do(options: LoopOptions) -> None:
    def run_out(step: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def lose_worker(step: int) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def fail(step: int) -> None:
        raise RuntimeError("shapes differ")

    stage = (ToyLosses(), ToySource(), options)
    with pytest.raises(DeviceError, match="cpu: out of memory in training; make micro-batches"):
        train(*stage, device=CPU, on_step=run_out)
    with pytest.raises(DeviceError, match=r"pid 7.* fewer workers"):
        train(*stage, device=CPU, on_step=lose_worker)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(*stage, device=CPU, on_step=fail)


def test_tensorboard_gets_the_log(options: LoopOptions) -> None:
    """A resumed run hides what it makes again, so each step counts once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_toy(replace(options, max_seconds=0.0))
    first = (options.folder / LAST_NAME).read_bytes()
    train_toy(options)
    (options.folder / LAST_NAME).write_bytes(first)
    train_toy(options)
    events = accumulator.EventAccumulator(str(options.folder / BOARD_FOLDER))
    events.Reload()
    rows = [row for row in read_log(options.folder / LOG_NAME) if row["kind"] == "train"]
    scalars = events.Scalars("train/square")
    assert [one.step for one in scalars] == [row["step"] for row in rows] == [4, 8, 12]
    assert [one.value for one in scalars] == pytest.approx([row["square"] for row in rows])
    assert len(events.Scalars("validation/score")) == 1


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half a file"])
def test_damaged_checkpoint(options: LoopOptions, content: bytes) -> None:
    options.folder.mkdir(parents=True)
    (options.folder / LAST_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read as a checkpoint"):
        train_toy(options)


def test_checkpoint_of_another_model(options: LoopOptions) -> None:
    train_toy(options)
    module = ToyLosses()
    module.trained["out"] = torch.nn.Linear(8, 3)
    module.trained["more"] = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"more.weight is missing, .*\(2, 8\), not \(3, 8\)"):
        train_toy(options, module=module)


def test_checkpoint_with_other_settings(options: LoopOptions) -> None:
    train_toy(options)
    other = replace(options, learning_rate=0.5, log_steps=1, num_workers=1, max_seconds=9.0)
    with pytest.raises(InputError, match=r"settings: learning_rate 0.01 there, 0.5 now; give"):
        train_toy(other)
    with pytest.raises(InputError, match=r"settings: data None there, lvis now; give"):
        train(ToyLosses(), ToySource(), options, device=CPU, facts=StageFacts({"data": "lvis"}))


def test_long_settings_are_shown_where_they_differ(options: LoopOptions) -> None:
    long = "a" * 200
    facts = [StageFacts({"recipe": f"{long}{last}{long}"}) for last in "xy"]
    train(ToyLosses(), ToySource(), options, device=CPU, facts=facts[0])
    with pytest.raises(InputError, match=r"recipe \.\.\.a{20}xa{39}\.\.\. there, \.\.\.a{20}ya"):
        train(ToyLosses(), ToySource(), options, device=CPU, facts=facts[1])


def test_checkpoints_carry_the_config_and_are_announced(options: LoopOptions) -> None:
    seen: list[bool] = []
    facts = StageFacts(config="{}", before_save=lambda: seen.append(last.exists()))
    last = options.folder / LAST_NAME
    train(ToyLosses(), ToySource(), options, device=CPU, validate=judge, facts=facts)
    assert seen[0] is False and len(seen) >= 2
    for name in (LAST_NAME, BEST_NAME):
        saved = torch.load(options.folder / name, weights_only=True)
        assert saved["config"] == "{}" and "learning_rate" in saved["settings"]


def test_parameter_that_nobody_trains(options: LoopOptions) -> None:
    module = ToyLosses()
    module.trunk.requires_grad_(True)
    with pytest.raises(ValueError, match=r"trunk.weight requires a gradient but is not among"):
        train_toy(options, module=module)
