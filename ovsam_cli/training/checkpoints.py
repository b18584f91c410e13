"""Checkpoints of a run: whole or not there, and refused where they do not fit."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ovsam_cli.errors import CheckpointError, InputError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.logs import Window, WindowState

LAST_NAME, BEST_NAME = "last.pt", "best.pt"
Settings: TypeAlias = Mapping[str, "bool | int | float | str | None"]
MAX_NAMED = 3  # keys or settings named in one message
# What a damaged or foreign file makes torch raise.
_UNREADABLE = (
    *(RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError),
    *(EOFError, OSError, pickle.UnpicklingError),
)


class _Saved(TypedDict, total=False):
    """`last.pt`; `best.pt` has `weights` and `step` only."""

    settings: dict[str, bool | int | float | str | None]
    trained: dict[str, Tensor]
    optimizer: dict[str, object]
    average: dict[str, Tensor] | None
    weights: dict[str, Tensor]
    step: int
    seconds: float
    best_score: float
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
        num_nonfinite: steps in a row that were skipped.
        window: since the last line of the log.
    """

    trained: nn.Module
    optimizer: AdamW
    average: dict[str, Tensor] | None
    step: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    num_nonfinite: int = 0
    window: Window = field(default_factory=Window)

    def weights(self) -> dict[str, Tensor]:
        """State dict to validate and to ship: the average where there is one."""
        return self.trained.state_dict() if self.average is None else self.average

    def save(self, folder: Path, settings: Settings) -> None:
        """Write `last.pt`, whole or not at all.

        Raises:
            OutputError: the folder is full or cannot be written.
        """
        _save(
            {
                "settings": dict(settings),
                "trained": self.trained.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "step": self.step,
                "seconds": self.seconds,
                "best_score": self.best_score,
                "num_nonfinite": self.num_nonfinite,
                "window": self.window.to_state(),
            },
            folder / LAST_NAME,
        )

    def save_best(self, folder: Path) -> None:
        """Write the weights of this moment to `best.pt`."""
        _save({"weights": self.weights(), "step": self.step}, folder / BEST_NAME)

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
            _check_settings(path, state["settings"], settings)
            _check_weights(path, state["trained"], self.trained.state_dict())
            self.trained.load_state_dict(state["trained"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                saved = state["average"] or {}
                for key, value in self.average.items():
                    value.copy_(saved[key])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.best_score = float(state["best_score"])
            self.num_nonfinite = int(state["num_nonfinite"])
            self.window = Window(**state["window"])
        except _UNREADABLE as error:
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


def _save(state: _Saved, path: Path) -> None:
    with write_whole_file(path) as file:
        torch.save(state, file)


def _load(path: Path) -> _Saved:
    try:
        state: _Saved = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch's own text on unpickling advises to load the file without protection.
        reason = "damaged" if isinstance(error, pickle.UnpicklingError) else error
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint of training ({reason}); remove it to start "
            "again, or choose another folder"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint of training; choose another folder")
    return state


def _check_settings(path: Path, found: Settings, wanted: Settings) -> None:
    differing = [
        f"{name} {found.get(name)} there, {wanted.get(name)} now"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            f"{path}: trained with other settings: {_name_some(differing)}; give the same ones, "
            "or another folder to start anew"
        )


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
