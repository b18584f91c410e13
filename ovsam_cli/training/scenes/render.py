"""Render training scenes of 3D models with exact instance masks."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ovsam_cli.errors import OutputError
from ovsam_cli.training.scenes.arrange import arrange, choose_kind
from ovsam_cli.training.scenes.catalog import (
    FurnitureModel,
    Split,
    read_catalog,
    select_models,
    unpack_models,
)
from ovsam_cli.training.scenes.exr import read_channels
from ovsam_cli.training.scenes.layout import Stage, drop_small
from ovsam_cli.training.scenes.photo import develop, encode_jpeg
from ovsam_cli.training.scenes.sidecars import (
    SceneObject,
    SceneRange,
    scene_file_name,
    write_sidecar,
)

PICTURE_HW = (336, 448)
SAMPLES = 4  # a pixel, before denoising
MIN_AREA = 64  # pixels; less is not worth a prompt
MIN_SIDE = 4  # pixels of the mask's box
_SPLIT_SEEDS = {"train": 0, "val": 1}


def render_scenes(
    sources: Path,
    out: Path,
    scenes: SceneRange,
    *,
    seed: int,
    split: Split,
    on_image_done: Callable[[int], None] | None = None,
) -> int:
    """Render those of the scenes that `out` does not hold yet.

    Scene i depends on (seed, split, i) alone, so any number of processes can share the work.

    Args:
        sources: folder with Debian's sweethome3d-furniture package.
        out: output folder; gets `images/` and `scenes/`.
        scenes: of this process.
        seed: of everything.
        split: `train` shows the training models, `val` the held-out ones.
        on_image_done: called with the scene's number after each scene.

    Returns:
        Number of scenes rendered.

    Raises:
        InputError: the package is missing, or bpy is not installed.
        OutputError: `out` cannot be written.
    """
    models = select_models(read_catalog(unpack_models(sources)), split)
    todo = scenes.find_missing(out)
    for index in todo:
        radiance, ids, stage, rng = _render_scene(models, (seed, _SPLIT_SEEDS[split], index))
        _save_scene(out, index, encode_jpeg(develop(radiance, rng), rng), cut_objects(ids, stage))
        if on_image_done is not None:
            on_image_done(index)
    return len(todo)


def _render_scene(
    models: list[FurnitureModel], seeds: tuple[int, int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], Stage, np.random.Generator]:
    from ovsam_cli.training.scenes.studio import Studio

    rng = np.random.default_rng(seeds)
    kind = choose_kind(rng)
    stage = arrange(kind, models, rng)
    studio = Studio(stage, PICTURE_HW, SAMPLES)
    studio.build_scenery()
    studio.build_placements()
    far = {"room": 4.5, "table": 2.5, "outdoor": 7.0}[kind]
    wanted = int(rng.integers(4, 14) if kind == "outdoor" else rng.integers(15, 40))
    drop_small(stage, studio.probe, wanted, far)
    studio.build_placements()
    with tempfile.TemporaryDirectory(prefix="ovsam-scene-") as folder:
        path = Path(folder) / "scene.exr"
        studio.render(path)
        channels = read_channels(path)
    radiance = np.stack([_find(channels, f"Combined.{band}") for band in "RGB"], axis=-1)
    ids = np.rint(_find(channels, "IndexOB.X", "Object Index.X")).astype(np.int32)
    return radiance, ids, stage, rng


def _find(channels: dict[str, npt.NDArray[np.float32]], *endings: str) -> npt.NDArray[np.float32]:
    for name, values in channels.items():
        if name.endswith(endings):
            return values
    raise AssertionError(f"no channel {endings} among {sorted(channels)}")


def cut_objects(ids: npt.NDArray[np.int32], stage: Stage) -> list[SceneObject]:
    """The objects of a stage that can be seen well enough.

    Args:
        ids: (H, W) number of the placement at each pixel, counted from 1; 0 is background.
        stage: the placements.
    """
    objects: list[SceneObject] = []
    for number, placement in enumerate(stage.placements, start=1):
        mask = ids == number
        rows, columns = np.nonzero(mask)
        if len(rows) < MIN_AREA:
            continue
        if min(np.ptp(rows), np.ptp(columns)) + 1 < MIN_SIDE:
            continue
        source = f"sweethome3d/{placement.model.model_id}"
        objects.append(SceneObject(placement.model.name, source, mask))
    return objects


def _save_scene(out: Path, index: int, jpeg: bytes, objects: list[SceneObject]) -> None:
    name = scene_file_name(index)
    path = out / "images" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_bytes(jpeg)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error}); free some space or choose another --out"
        ) from error
    write_sidecar(out, name, PICTURE_HW, objects)
