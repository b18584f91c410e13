"""Regions described once and kept, a file a micro-batch, with what they were made of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ovsam_cli.errors import InputError
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.tiny_regions import describe_regions
from ovsam_cli.outputs.files import output_error, write_whole_file
from ovsam_cli.training.batches import BatchSource
from ovsam_cli.training.checkpoints import UNREADABLE, Settings, check_settings
from ovsam_cli.training.distributed import Ranks
from ovsam_cli.training.instance_batches import InstanceBatch

SETTINGS_NAME = "settings.json"


@dataclass(frozen=True, slots=True)
class RegionFiles:
    """Where descriptors are kept.

    Attributes:
        folder: one file a micro-batch, and the settings.
        settings: all that decides about the descriptors: data, seed, weights, views.
    """

    folder: Path
    settings: Settings

    def path(self, index: int) -> Path:
        """The file of micro-batch `index`."""
        return self.folder / f"{index:06d}.pt"

    def prepare(self) -> None:
        """Make the folder and write down the settings; refuse files of other ones.

        Raises:
            InputError: what is there was made of something else, or nothing says of what.
            OutputError: the folder cannot be written.
        """
        path = self.folder / SETTINGS_NAME
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.folder, error) from error
        if next(self.folder.glob("*.pt"), None) is not None:
            found = _read_settings(path)
            if found is None:
                raise InputError(
                    f"{self.folder}: described regions, but no {SETTINGS_NAME} that says of what; "
                    "remove the folder to describe them anew"
                )
            check_settings(path, found, self.settings)
            return
        with write_whole_file(path) as file:
            file.write(json.dumps(dict(self.settings), indent=1).encode())

    def read(self, index: int) -> tuple[Tensor, Tensor] | None:
        """Descriptors and labels of a micro-batch; None where no whole file is there."""
        try:
            descriptors, labels = torch.load(self.path(index), weights_only=True)
        except UNREADABLE:
            return None
        is_whole = isinstance(descriptors, Tensor) and isinstance(labels, Tensor)
        return (descriptors, labels) if is_whole and len(descriptors) == len(labels) else None


def describe_batches(
    model: OVSAM,
    source: BatchSource[InstanceBatch],
    count: int,
    files: RegionFiles,
    *,
    ranks: Ranks | None = None,
    deadline: float | None = None,
    on_batch_done: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Describe the regions of the first micro-batches; those that are kept are read.

    Args:
        model: trunk and FPN are used, on the device they are on.
        source: of micro-batches with regions.
        count: micro-batches.
        files: where they are kept.
        ranks: each describes its share, and all get all; joined. None: alone.
        deadline: of `time.monotonic`, after which no micro-batch is begun; None: never.
        on_batch_done: called with the number done.

    Returns:
        (n, DESCRIPTOR_SIZE) float16 descriptors and (n,) int64 labels, on the CPU; None when the
        time was up before the last one.

    Raises:
        InputError: the folder has regions of other data, weights or views.
        OutputError: the folder cannot be written.
    """
    ranks = ranks or Ranks()
    if ranks.is_first:
        files.prepare()
    ranks.wait()
    own: dict[int, tuple[Tensor, Tensor]] = {}
    is_late = False
    for index in range(ranks.rank, count, ranks.world_size):
        found = files.read(index)
        if found is None:
            is_late = deadline is not None and time.monotonic() >= deadline
            if is_late:
                break
            found = _describe(model, source[index])
            with write_whole_file(files.path(index)) as file:
                torch.save(found, file)
        own[index] = found
        if on_batch_done is not None:
            on_batch_done(index + 1)
    if ranks.greatest([is_late])[0]:
        return None
    return _gather(own, count, files)


def _gather(
    own: dict[int, tuple[Tensor, Tensor]], count: int, files: RegionFiles
) -> tuple[Tensor, Tensor]:
    """This rank's and, from their files, the other ranks'."""
    pairs = [own.get(index) or files.read(index) for index in range(count)]
    whole = [one for one in pairs if one is not None]
    if len(whole) < count:
        raise InputError(
            f"{files.folder}: files that other processes wrote cannot be read here; all need to "
            "see one folder"
        )
    return torch.cat([one[0] for one in whole]), torch.cat([one[1] for one in whole])


def _describe(model: OVSAM, batch: InstanceBatch) -> tuple[Tensor, Tensor]:
    batch = batch.to(next(model.parameters()).device)
    regions = batch.regions
    assert regions is not None  # the recipe asks for them
    with torch.inference_mode():
        levels = model.fpn_neck(model.backbone(batch.pixels))
        found = describe_regions(levels, regions.boxes_xyxy, regions.image_index)
    return found.half().cpu().clone(), regions.labels.cpu()


def _read_settings(path: Path) -> Settings | None:
    try:
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
