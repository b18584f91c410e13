"""Draw examples/scene_1.jpg and scene_2.jpg with their truth, examples/scenes_truth.json.

    python scripts/make_example_scenes.py SOURCES examples

SOURCES is the folder that `ovsam train scenes` fills. Only art under MIT (Fluent Emoji, robosuite)
and CC0 (Poly Haven) is used, so that the pictures can be passed on with this repository.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ovsam_cli.training.scenes.icons import draw_icons
from ovsam_cli.training.scenes.sidecars import SceneObject, assemble_annotations, write_sidecar
from ovsam_cli.training.scenes.sprites import ALPHA_CUT, UInt8Array
from ovsam_cli.training.scenes.textures import read_panorama, read_robosuite_texture

WIDTH, HEIGHT = 640, 480
VENDOR = "fluent-emoji"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing: its icon, its category, where its foot stands, and how tall it is, in pixels."""

    icon: str
    name: str
    x: int
    foot_y: int
    tall: int


TABLE = (
    Item("potted-plant", "potted plant", 92, 262, 190),
    Item("teapot", "teapot", 258, 282, 120),
    Item("television", "tv", 505, 250, 190),
    Item("hot-beverage", "teacup", 390, 318, 86),
    Item("red-apple", "apple", 150, 368, 78),
    Item("tangerine", "orange", 216, 384, 66),
    Item("banana", "banana", 318, 408, 92),
    Item("bread", "bread", 480, 398, 104),
    Item("teddy-bear", "teddy bear", 585, 418, 132),
    Item("carrot", "carrot", 70, 440, 76),
)
MEADOW = (
    Item("bus", "bus", 505, 262, 120),
    Item("airplane", "airplane", 130, 96, 60),
    Item("ewe", "sheep", 330, 262, 40),
    Item("ewe", "sheep", 385, 268, 44),
    Item("horse", "horse", 215, 330, 124),
    Item("bicycle", "bicycle", 425, 392, 118),
    Item("dog", "dog", 120, 408, 110),
    Item("soccer-ball", "sports ball", 245, 432, 46),
    Item("cat", "cat", 575, 436, 92),
    Item("kite", "kite", 330, 150, 96),
)


def main(sources: Path, examples: Path) -> None:
    """Draw both scenes and write their truth."""
    icons = sorted({item.icon for item in (*TABLE, *MEADOW)})
    drawings = draw_icons(sources, VENDOR, icons)
    wall = read_robosuite_texture(sources, "cream-plaster.png")
    wood = read_robosuite_texture(sources, "wood-varnished-panels.png")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        scenes = (
            ("scene_1", TABLE, draw_room(wall, wood)),
            ("scene_2", MEADOW, draw_meadow(sources)),
        )
        for stem, items, ground in scenes:
            rgb, objects = draw_scene(ground, items, drawings)
            path = examples / f"{stem}.jpg"
            Image.fromarray(rgb).save(path, quality=88)
            write_sidecar(out, path.name, (HEIGHT, WIDTH), objects)
        shutil.copy(assemble_annotations(out), examples / "scenes_truth.json")
    truth = json.loads((examples / "scenes_truth.json").read_text())
    print(len(truth["images"]), "images,", len(truth["annotations"]), "objects")


def draw_room(wall: UInt8Array, wood: UInt8Array) -> Image.Image:
    """A plastered wall behind a wooden table top that runs away from the viewer."""
    room = Image.fromarray(wall).resize((WIDTH, HEIGHT)).point(lambda level: int(level * 0.86))
    edge = 215
    top = (
        Image.fromarray(wood)
        .resize((WIDTH * 2, HEIGHT))
        .transform(
            (WIDTH, HEIGHT - edge),
            Image.Transform.QUAD,
            (WIDTH * 0.2, 0, WIDTH * 0.4, HEIGHT, WIDTH * 1.6, HEIGHT, WIDTH * 1.8, 0),
            Image.Resampling.BICUBIC,
        )
    )
    room.paste(top, (0, edge))
    shadow = Image.new("L", room.size)
    ImageDraw.Draw(shadow).rectangle((0, edge - 8, WIDTH, edge + 3), fill=120)
    room.paste((30, 20, 12), (0, 0), shadow.filter(ImageFilter.GaussianBlur(5)))
    return room


def draw_meadow(sources: Path) -> Image.Image:
    """The park panorama of Poly Haven, slightly out of focus."""
    panorama = Image.fromarray(read_panorama(sources, "park"))
    crop = panorama.crop((330, 36, 690, 306))
    return crop.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def draw_scene(
    ground: Image.Image, items: tuple[Item, ...], drawings: dict[str, UInt8Array]
) -> tuple[UInt8Array, list[SceneObject]]:
    """Put the items on the ground from back to front."""
    owners = np.full((HEIGHT, WIDTH), -1, np.int64)
    for number, item in enumerate(items):
        drawing = Image.fromarray(drawings[item.icon])
        drawing = drawing.crop(drawing.getchannel("A").point(_OPAQUE).getbbox())
        size = (round(drawing.width * item.tall / drawing.height), item.tall)
        drawing = drawing.resize(size, Image.Resampling.LANCZOS)
        left, top = item.x - size[0] // 2, item.foot_y - size[1]
        _cast_shadow(ground, item, size)
        ground.paste(drawing.convert("RGB"), (left, top), drawing.getchannel("A"))
        layer = Image.new("L", (WIDTH, HEIGHT))
        layer.paste(drawing.getchannel("A"), (left, top))
        owners[np.asarray(layer) >= ALPHA_CUT] = number
    rng = np.random.default_rng(0)
    light = np.linspace(1.06, 0.88, WIDTH)[None, :, None]
    levels = np.asarray(ground.filter(ImageFilter.GaussianBlur(0.5))) * light
    levels += rng.normal(0, 3.0, levels.shape)
    objects = [
        SceneObject(item.name, f"{VENDOR}/{item.icon}", owners == number)
        for number, item in enumerate(items)
    ]
    return levels.clip(0, 255).astype(np.uint8), objects


def _cast_shadow(ground: Image.Image, item: Item, size: tuple[int, int]) -> None:
    if item.foot_y < 200:  # in the air
        return
    shadow = Image.new("L", ground.size)
    half, flat = size[0] * 0.46, max(3, size[1] // 14)
    box = (item.x - half, item.foot_y - flat - 2, item.x + half * 1.25, item.foot_y + flat - 2)
    ImageDraw.Draw(shadow).ellipse(box, fill=150)
    ground.paste((12, 10, 8), (0, 0), shadow.filter(ImageFilter.GaussianBlur(max(2, flat // 2))))


_OPAQUE = [255 if level >= ALPHA_CUT else 0 for level in range(256)]

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
