"""The models in the folder of a `clip2sam` run: what it started from, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ovsam_cli.model.official_files import (
    BEST_NAME,
    LAST_NAME,
    START_NAME,
    TEXT_PREFIX,
    TRAINED_NAME,
)
from ovsam_cli.model.own_files import ModelWeights, save_weights
from ovsam_cli.model.run_checkpoints import Finish, read_checkpoint, read_finish, save_start
from ovsam_cli.training.clip2sam_inputs import StartModel
from ovsam_cli.training.recipes import Clip2SamRecipe


class RunModel:
    """Makes models of a run's checkpoints.

    Args:
        folder: of the run.
        start: before any training: its trained parts are copied here.
        trained_on: what the head sees; goes into the config.
        recipe: how trained weights are finished.
    """

    def __init__(
        self, folder: Path, start: StartModel, trained_on: Sequence[str], recipe: Clip2SamRecipe
    ) -> None:
        self.folder, self.start = folder, start
        self.config = replace(start.model.config, trained_on=tuple(trained_on))
        self.finish = Finish(start.origin, recipe.start_share, recipe.boxes, recipe.is_half)
        self._begun: dict[str, Tensor] = {}
        self._is_kept = False

    def remember(self, keys: Sequence[str]) -> None:
        """Copy parts of the model that training is going to change."""
        state = self.start.model.state_dict()
        self._begun = {key: state[key].detach().cpu().clone() for key in keys}

    def before_save(self) -> None:
        """Keep the start beside the checkpoint to come; an older result would hide that one.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._keep_start()
        (self.folder / TRAINED_NAME).unlink(missing_ok=True)

    def _keep_start(self) -> None:
        if self._is_kept:
            return
        path = self.folder / START_NAME
        goes_on = (self.folder / LAST_NAME).exists()
        if not goes_on:  # what an earlier run left is of another seed or other settings
            (self.folder / BEST_NAME).unlink(missing_ok=True)
        if not goes_on or not path.is_file() or read_finish(path) != self.finish:
            save_start(self.folder, self._weights(), self.finish)
        self._is_kept = True

    def _weights(self) -> ModelWeights:
        return ModelWeights(
            config=self.config,
            tensors={**self.start.model.state_dict(), **self._begun},
            text_weights=self.start.text_weights,
            paths=(),
            license_notice=self.start.license_notice,
        )

    def write_result(self, checkpoint: Path) -> Path:
        """Write the model of a checkpoint to `model.safetensors`.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            OutputError: the folder cannot be written.
        """
        self._keep_start()  # of a run that had ended already it may have been deleted
        weights = read_checkpoint(checkpoint)
        assert weights is not None  # the loop wrote it
        tensors = {**weights.tensors}
        tensors |= {TEXT_PREFIX + key: value for key, value in weights.text_weights.items()}
        path = self.folder / TRAINED_NAME
        save_weights(tensors, weights.config, path, license_notice=weights.license_notice)
        return path
