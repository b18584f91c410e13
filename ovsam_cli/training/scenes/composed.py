"""Composed scenes as files: images, sidecars, and the licences of what they are made of."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.scenes.compose import (
    ComposedScene,
    compose_scene,
    load_scene_assets,
)
from ovsam_cli.training.scenes.sidecars import is_scene_done, scene_file_name, write_sidecar
from ovsam_cli.training.scenes.sources import (
    ALL_PACKAGES,
    FURNITURE_PACKAGE,
    HELD_OUT_VENDOR,
    ICON_PACKAGES,
    Split,
)

JPEG_QUALITY = 93  # the scene has met its own, lower quality before


def scene_rng(seed: int, split: Split, index: int) -> np.random.Generator:
    """The randomness of scene `index`, the same for any number of processes."""
    return np.random.default_rng([seed, 0 if split == "train" else 1, index])


def compose_scenes(
    sources: Path,
    out: Path,
    *,
    count: int,
    start: int,
    stride: int,
    seed: int,
    split: Split,
    on_image_done: Callable[[int], None] | None = None,
) -> int:
    """Write the scenes `start, start + stride, ...` below `count` that `out` does not hold yet.

    Args:
        sources: folder with the archives; the rendered drawings are cached in `sources/cache`.
        out: output folder: `images/NNNNNN.jpg` and `scenes/NNNNNN.json`.
        count: number of scenes of all processes together.
        start: first index of this process.
        stride: number of processes.
        seed: together with the index it decides the whole scene.
        split: `train` or `val`; they share neither drawings nor photographs.
        on_image_done: called with the index of each scene written.

    Returns:
        How many scenes were written.

    Raises:
        InputError: `start` or `stride` make no sense, or an archive is missing.
        OutputError: `out` cannot be written.
    """
    todo = find_missing_scenes(out, count, start, stride)
    if not todo:
        return 0
    assets = load_scene_assets(sources, split)
    write_scenes(
        out,
        todo,
        lambda index: compose_scene(assets, scene_rng(seed, split, index)),
        on_image_done,
    )
    return len(todo)


def find_missing_scenes(out: Path, count: int, start: int, stride: int) -> list[int]:
    """Those of the scenes `start, start + stride, ...` below `count` that `out` does not hold.

    Raises:
        InputError: `start` or `stride` make no sense.
    """
    if start < 0 or stride < 1:
        raise InputError(f"start {start}, stride {stride}: wanted start >= 0 and stride >= 1")
    return [index for index in range(start, count, stride) if not is_scene_done(out, index)]


def write_scenes(
    out: Path,
    indices: Sequence[int],
    compose: Callable[[int], ComposedScene],
    on_image_done: Callable[[int], None] | None,
) -> None:
    """Compose scenes and write each as an image and, last, its sidecar.

    Raises:
        OutputError: `out` cannot be written.
    """
    for index in indices:
        scene = compose(index)
        path = out / "images" / scene_file_name(index)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.rgb).save(path, quality=JPEG_QUALITY, subsampling=0)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error}); free some space") from error
        write_sidecar(out, path.name, scene.rgb.shape[:2], scene.objects)
        if on_image_done is not None:
            on_image_done(index)


def composed_attributions(split: Split) -> tuple[str, ...]:
    """One line a package in the scenes of `split`: name, version, author and licence."""
    lines = []
    for package in ALL_PACKAGES:
        is_held_out = package is ICON_PACKAGES[HELD_OUT_VENDOR]
        is_icons = package in ICON_PACKAGES.values()
        if package is FURNITURE_PACKAGE or (is_icons and is_held_out != (split == "val")):
            continue
        version = f" {package.version}" if package.version else ""
        lines.append(f"{package.package}{version}: {package.attribution}, {package.license}")
    return tuple(lines)


def write_composed_attributions(out: Path, split: Split) -> Path:
    """Write who made what the scenes of `split` show: `out/attributions.txt`, a line a package.

    Raises:
        OutputError: the file cannot be written.
    """
    path = out / "attributions.txt"
    with write_whole_file(path) as file:
        file.write("".join(f"{line}\n" for line in composed_attributions(split)).encode())
    return path
