"""Checkpoints of a run: whole or not there, and refused where they do not fit."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.model.official_files import BEST_NAME, LAST_NAME
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.logs import Window, WindowState

Settings: TypeAlias = Mapping[str, "bool | int | float | str | None"]
MAX_NAMED = 3  # keys or settings named in one message
MAX_SHOWN = 60  # letters of a setting in it, from where two of them differ
# What a damaged or foreign file makes torch raise.
UNREADABLE = (
    *(RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError),
    *(EOFError, OSError, pickle.UnpicklingError),
)


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What a stage tells the loop for its checkpoints.

    Attributes:
        settings: data, recipe, files: a checkpoint made with others is refused.
        config: of the model, as JSON; every checkpoint carries it.
        before_save: called on the first rank before a checkpoint is written, or None.
    """

    settings: Settings = field(default_factory=dict)
    config: str = ""
    before_save: Callable[[], None] | None = None


class _Saved(TypedDict, total=False):
    """`last.pt`; `best.pt` has `weights`, `step`, `settings` and `config` only."""

    settings: dict[str, bool | int | float | str | None]
    config: str
    trained: dict[str, Tensor]
    optimizer: dict[str, object]
    average: dict[str, Tensor] | None
    weights: dict[str, Tensor]
    step: int
    seconds: float
    best_score: float
    validated_step: int
    num_nonfinite: int
    window: WindowState


@dataclass(slots=True)
class TrainingState:
    """Everything a run continues from.

    Attributes:
        trained: the trained parts.
        optimizer: of them.
        average: state dict of their moving average, or None.
        step: updates done.
        seconds: of training so far.
        best_score: greatest of the validations.
        validated_step: of the last validation; `step` may be due for one that a kill took away.
        num_nonfinite: steps in a row that were skipped.
        window: since the last line of the log.
    """

    trained: nn.Module
    optimizer: AdamW
    average: dict[str, Tensor] | None
    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    validated_step: int = 0
    num_nonfinite: int = 0
    window: Window = field(default_factory=Window)

    def weights(self) -> dict[str, Tensor]:
        """State dict to validate and to ship: the average where there is one."""
        return self.trained.state_dict() if self.average is None else self.average

    def save(self, folder: Path, facts: StageFacts) -> None:
        """Write `last.pt`, whole or not at all.

        Args:
            folder: of the run.
            facts: with the settings of stage and loop.

        Raises:
            OutputError: the folder is full or cannot be written.
        """
        _save(
            facts,
            {
                "settings": dict(facts.settings),
                "config": facts.config,
                "trained": self.trained.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "step": self.step,
                "seconds": self.seconds,
                "best_score": self.best_score,
                "validated_step": self.validated_step,
                "num_nonfinite": self.num_nonfinite,
                "window": self.window.to_state(),
            },
            folder / LAST_NAME,
        )

    def save_best(self, folder: Path, facts: StageFacts) -> None:
        """Write the weights of this moment to `best.pt`."""
        _save(
            facts,
            {
                "weights": self.weights(),
                "step": self.step,
                "settings": dict(facts.settings),
                "config": facts.config,
            },
            folder / BEST_NAME,
        )

    def load(self, folder: Path, settings: Settings) -> bool:
        """Go on from the folder's `last.pt`, if there is one.

        Args:
            folder: of the run.
            settings: what decides about the result; they must be those of the checkpoint.

        Raises:
            CheckpointError: the file is damaged or of another model.
            InputError: it was trained with other settings.
        """
        path = folder / LAST_NAME
        if not path.exists():
            return False
        state = _load(path)
        try:
            check_settings(path, state["settings"], settings)
            _check_weights(path, state["trained"], self.trained.state_dict())
            self.trained.load_state_dict(state["trained"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                saved = state["average"] or {}
                for key, value in self.average.items():
                    value.copy_(saved[key])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.best_score = float(state["best_score"])
            self.validated_step = int(state["validated_step"])
            self.num_nonfinite = int(state["num_nonfinite"])
            self.window = Window(**state["window"])
        except UNREADABLE as error:
            raise CheckpointError(
                f"{path}: not a checkpoint of this training ({error}); choose another folder"
            ) from error
        return True


def load_trained_weights(path: Path) -> dict[str, Tensor]:
    """State dict of the trained parts: of `best.pt`, or the average (else the last) of `last.pt`.

    Args:
        path: either file of a run.

    Raises:
        CheckpointError: neither file, or damaged.
    """
    state = _load(path)
    weights = state.get("weights") or state.get("average") or state.get("trained")
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path}: holds no weights of a training run")
    return weights


def _save(facts: StageFacts, state: _Saved, path: Path) -> None:
    if facts.before_save is not None:
        facts.before_save()
    with write_whole_file(path) as file:
        torch.save(state, file)


def _load(path: Path) -> _Saved:
    try:
        state: _Saved = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint of training ({name_fault(error)}); remove it "
            "to start again, or choose another folder"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint of training; choose another folder")
    return state


def name_fault(error: BaseException) -> str:
    """What is wrong with a file that torch cannot read, without torch's advice.

    (Its own text on unpickling advises to load the file without protection.)
    """
    return "damaged" if isinstance(error, pickle.UnpicklingError) else str(error)


def check_settings(path: Path, found: Settings, wanted: Settings) -> None:
    """Refuse what was made with other settings.

    Args:
        path: of what was made; named in the message.
        found: settings it was made with.
        wanted: those of now.

    Raises:
        InputError: they differ; it says where.
    """
    differing = [
        _show_difference(name, str(found.get(name)), str(wanted.get(name)))
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            f"{path}: trained with other settings: {_name_some(differing)}; give the same ones, "
            "or another folder to start anew"
        )


def _show_difference(name: str, found: str, wanted: str) -> str:
    """Both values; of long ones the part where they differ."""
    begin = 0
    if max(len(found), len(wanted)) > MAX_SHOWN:
        pairs = enumerate(zip(found, wanted, strict=False))
        same = next((place for place, (one, other) in pairs if one != other), 0)
        begin = max(0, same - MAX_SHOWN // 3)
    shown = [
        ("..." if begin else "")
        + text[begin : begin + MAX_SHOWN]
        + ("..." if len(text) > begin + MAX_SHOWN else "")
        for text in (found, wanted)
    ]
    return f"{name.removeprefix('stage ')} {shown[0]} there, {shown[1]} now"


def _check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    faults = [f"{key} is missing" for key in wanted if key not in found]
    faults += [f"{key} is unknown" for key in found if key not in wanted]
    faults += [
        f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    if faults:
        raise CheckpointError(
            f"{path}: of another model: {_name_some(faults)}; choose another folder"
        )


def _name_some(texts: list[str]) -> str:
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f", and {more} more" if more > 0 else "")
