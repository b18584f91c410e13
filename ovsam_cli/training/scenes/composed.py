"""Composed scenes as files: images, sidecars, and the licences of what they are made of."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ovsam_cli.errors import OutputError
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.training.scenes.compose import ComposedScene, SceneAssets, load_scene_assets
from ovsam_cli.training.scenes.sidecars import SceneRange, scene_file_name, write_sidecar
from ovsam_cli.training.scenes.sources import (
    ALL_PACKAGES,
    FURNITURE_PACKAGE,
    HELD_OUT_VENDOR,
    ICON_PACKAGES,
    Split,
)

JPEG_QUALITY = 93  # the scene has met its own, lower quality before


# Assets, seed, split and number of a scene -> the scene, which depends on nothing else.
ComposeScene = Callable[[SceneAssets, int, Split, int], ComposedScene]


def compose_scenes(
    sources: Path,
    out: Path,
    scenes: SceneRange,
    compose: ComposeScene,
    *,
    seed: int,
    split: Split,
    on_image_done: Callable[[int], None] | None = None,
) -> int:
    """Write those of the scenes that `out` does not hold yet.

    Args:
        sources: folder with the archives; the rendered drawings are cached in `sources/cache`.
        out: output folder: `images/NNNNNN.jpg` and `scenes/NNNNNN.json`.
        scenes: of this process.
        compose: `compose.compose_numbered` or `pages.compose_numbered_page`.
        seed: together with the number it decides the whole scene.
        split: `train` or `val`; they share neither drawings nor photographs.
        on_image_done: called with the number of each scene written.

    Returns:
        How many scenes were written.

    Raises:
        InputError: an archive is missing.
        OutputError: `out` cannot be written.
    """
    todo = scenes.find_missing(out)
    if not todo:
        return 0
    assets = load_scene_assets(sources, split)
    for index in todo:
        _write_scene(out, index, compose(assets, seed, split, index))
        if on_image_done is not None:
            on_image_done(index)
    return len(todo)


def _write_scene(out: Path, index: int, scene: ComposedScene) -> None:
    """An image and, last, its sidecar."""
    path = out / "images" / scene_file_name(index)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.rgb).save(path, quality=JPEG_QUALITY, subsampling=0)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); free some space") from error
    write_sidecar(out, path.name, scene.rgb.shape[:2], scene.objects)


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
