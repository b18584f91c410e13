"""The training loop of every stage: steps, log, validation, checkpoints, an orderly stop.

The same command again goes on from the last checkpoint and ends, on the CPU with as many threads,
with the weights of a run that was never stopped, bit for bit: see `batches.py` for why.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.model.official_files import BEST_NAME, LAST_NAME
from ovsam_cli.training.batches import (
    B,
    BatchOrder,
    BatchSource,
    LossModule,
    SkippedImage,
    Validated,
    iter_batches,
)
from ovsam_cli.training.checkpoints import StageFacts, TrainingState
from ovsam_cli.training.curves import write_curves
from ovsam_cli.training.distributed import Ranks, SharedLosses, find_ranks, joined, locked
from ovsam_cli.training.logs import LogLine, RunLog, Window
from ovsam_cli.training.optimizer import build_optimizer
from ovsam_cli.training.schedule import LoopOptions
from ovsam_cli.training.stages import TrainingSummary
from ovsam_cli.training.steps import Gradients, Stepper
from ovsam_cli.training.stopping import StopSignals, explain_failure

__all__ = ["LoopOptions", "LossModule", "TrainingSummary", "train"]

MAX_NONFINITE = 10  # skipped steps in a row
Validate = Callable[[Mapping[str, Tensor]], Validated]


def train(
    module: LossModule[B],
    source: BatchSource[B],
    options: LoopOptions,
    *,
    device: torch.device,
    validate: Validate | None = None,
    on_log: Callable[[LogLine], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    facts: StageFacts | None = None,
) -> TrainingSummary:
    """Train until the end of the schedule, a signal, or `max_seconds`.

    With the environment of torchrun set, all ranks call this alike. A first SIGINT, SIGTERM or
    SIGHUP ends the step, saves, and then takes its usual course (KeyboardInterrupt, ...).

    Args:
        module: on `device`.
        source: of the micro-batches.
        options: of the loop.
        device: of this rank.
        validate: scores the averaged (else the plain) state dict of the trained parts: the best
            is kept. Called on the first rank.
        on_log: called with each line of the log, on the first rank.
        on_step: called with the number of steps done.
        facts: of the stage, for its checkpoints.

    Raises:
        CheckpointError: the folder's checkpoint is damaged or of another model.
        InputError: it was made with other settings, or losses stay infinite.
        OutputError: the folder cannot be written, or another run writes to it.
        DeviceError: the device's memory is full.
    """
    ranks = find_ranks()
    with StopSignals() as signals, joined(ranks, device), locked(options.folder, ranks):
        callbacks = _Callbacks(validate, on_log, on_step)
        loop = _Loop(module, options, device, ranks, facts or StageFacts(), callbacks)
        try:
            stop_signal = loop.run(source, signals) or signals.number
        except RuntimeError as error:
            raise explain_failure(error, device) from error
    if stop_signal:
        signal.raise_signal(stop_signal)
    return loop.summary()


@dataclass(frozen=True, slots=True)
class _Callbacks:
    validate: Validate | None
    on_log: Callable[[LogLine], None] | None
    on_step: Callable[[int], None] | None


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What all ranks do after a step, because one of them must."""

    is_nonfinite: bool
    signal_number: int
    is_out_of_time: bool
    checkpoint_due: bool


class _Loop:
    """A run of the loop in one process."""

    def __init__(
        self,
        module: LossModule[B],
        options: LoopOptions,
        device: torch.device,
        ranks: Ranks,
        facts: StageFacts,
        callbacks: _Callbacks,
    ) -> None:
        self._options, self._ranks, self._callbacks = options, ranks, callbacks
        self._order = BatchOrder(options.accumulate, ranks.rank, ranks.world_size)
        settings = options.describe(self._order.batches_per_step)
        settings |= {f"stage {name}": value for name, value in facts.settings.items()}
        self._facts = replace(facts, settings=settings)
        trained = module.trained_parts()
        average = None
        if options.average_decay is not None:
            average = {key: value.clone() for key, value in trained.state_dict().items()}
        self._state = TrainingState(trained, build_optimizer(module, trained, options), average)
        self._state.load(options.folder, settings)
        self._stepper = Stepper(
            SharedLosses(module, ranks), self._state, options, self._order, device
        )
        self._skipped: list[tuple[int, SkippedImage]] = []
        self._pin_memory = device.type == "cuda"
        self._started = self._last_checkpoint = time.monotonic()

    def run(self, source: BatchSource[B], signals: StopSignals) -> int:
        """Train; the number of the signal that ended it, or 0."""
        is_validated = self._is_validated()
        if is_validated and self._state.step >= self._options.max_steps:
            return 0
        log = self._open_log()
        try:
            if not is_validated:  # ended between a checkpoint and its validation
                self._validate(log)
                self._save(log)
            return self._run_steps(source, signals, log)
        finally:
            if log is not None:
                log.close()

    def _run_steps(self, source: BatchSource[B], signals: StopSignals, log: RunLog | None) -> int:
        state, options = self._state, self._options
        steps = range(state.step, options.max_steps)
        made_ahead = iter_batches(
            source, self._order, steps, num_workers=options.num_workers, pin_memory=self._pin_memory
        )
        with closing(made_ahead) as batches:
            for _ in steps:
                agreed = self._step(batches, signals)
                is_last = state.step == options.max_steps
                if is_last or state.step % options.log_steps == 0:
                    self._write_log(log)
                is_stop = bool(agreed.signal_number) or agreed.is_out_of_time
                if is_last or is_stop or agreed.checkpoint_due:
                    self._save(log)  # before validation, which may fail
                if not self._is_validated():
                    self._validate(log)
                    self._save(log)
                if is_stop:
                    return agreed.signal_number
        return 0

    def _is_validated(self) -> bool:
        """Whether the validation due after this step, if one is, has been made."""
        step, every = self._state.step, self._options.validation_steps
        is_due = step >= self._options.max_steps or (every > 0 and step % every == 0)
        return not is_due or self._state.validated_step >= step

    def _open_log(self) -> RunLog | None:
        """The log, on the first rank."""
        if not self._ranks.is_first:
            return None
        folder, step = self._options.folder, self._state.step
        first = step * self._order.batches_per_step
        return RunLog(
            folder,
            step=step,
            first_index=first,
            validated_step=self._state.validated_step,
            on_log=self._callbacks.on_log,
        )

    def _step(self, batches: Iterator[B], signals: StopSignals) -> _Agreed:
        state, started = self._state, time.monotonic()
        gradients = self._stepper.compute_gradients(batches)
        agreed = self._agree(gradients, signals)
        if not agreed.is_nonfinite:
            self._stepper.update(gradients.norm)
        state.step += 1
        seconds = time.monotonic() - started
        state.seconds += seconds
        self._count(gradients, agreed.is_nonfinite, seconds)
        if state.num_nonfinite >= MAX_NONFINITE:
            raise InputError(
                f"step {state.step}: losses or gradients were not finite in {MAX_NONFINITE} steps "
                "in a row; lower the learning rate, lengthen the warm-up, clip gradients, or "
                "train in float32"
            )
        if self._callbacks.on_step is not None:
            self._callbacks.on_step(state.step)
        return agreed

    def _agree(self, gradients: Gradients, signals: StopSignals) -> _Agreed:
        now, limit = time.monotonic(), self._options.max_seconds
        due = now - self._last_checkpoint >= self._options.checkpoint_seconds
        found = self._ranks.greatest(
            [
                not gradients.are_finite(),
                signals.number,
                limit is not None and now - self._started >= limit,
                due and self._ranks.is_first,
            ]
        )
        return _Agreed(bool(found[0]), found[1], bool(found[2]), bool(found[3]))

    def _count(self, gradients: Gradients, is_nonfinite: bool, seconds: float) -> None:
        state, window = self._state, self._state.window
        state.num_nonfinite = state.num_nonfinite + 1 if is_nonfinite else 0
        window.num_steps += 1
        window.num_images += gradients.num_images
        window.seconds += seconds
        window.num_nonfinite += is_nonfinite
        self._skipped += gradients.skipped
        if not is_nonfinite:
            window.gradient_norm += gradients.norm
            for losses in gradients.losses:
                window.add_losses(losses)

    def _collect(self, log: RunLog | None) -> None:
        """Bring what the ranks counted and skipped to the first one."""
        gathered = self._ranks.gather((self._state.window, self._skipped))
        self._skipped = []
        if log is None:
            self._state.window = Window()
            return
        self._state.window.merge([window for window, _ in gathered[1:]])
        log.write_skipped([one for _, skipped in gathered for one in skipped])

    def _write_log(self, log: RunLog | None) -> None:
        self._collect(log)
        if log is not None:
            state = self._state
            values = state.window.means() | {
                "learning_rate": self._stepper.rate(),
                "seconds": state.seconds,
            }
            log.write("train", state.step, values)
        self._state.window = Window()

    def _validate(self, log: RunLog | None) -> None:
        validate, state = self._callbacks.validate, self._state
        if validate is not None and log is not None:
            found = validate(state.weights())
            log.write("validation", state.step, found.scores)
            last = state.step * self._order.batches_per_step - 1
            log.write_skipped([(last, one) for one in found.skipped])
            if found.scores["score"] > state.best_score:
                state.best_score = found.scores["score"]
                state.save_best(self._options.folder, self._facts)
        state.validated_step = state.step
        self._ranks.wait()

    def _save(self, log: RunLog | None) -> None:
        self._collect(log)
        if log is not None:
            self._state.save(self._options.folder, self._facts)
            write_curves(self._options.folder, max_steps=self._options.max_steps)
        self._ranks.wait()  # others may read it next
        self._last_checkpoint = time.monotonic()

    def summary(self) -> TrainingSummary:
        """How the run stands."""
        state, folder = self._state, self._options.folder
        best, validates = folder / BEST_NAME, self._callbacks.validate is not None
        return TrainingSummary(
            steps=state.step,
            seconds=state.seconds,
            is_finished=state.step >= self._options.max_steps,
            best_score=state.best_score,
            checkpoint=best if validates and best.exists() else folder / LAST_NAME,
        )
