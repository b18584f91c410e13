"""A labeller around the small random model, photos on disk and prompts for them; no text tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from small_model import SMALL

from ovsam_cli.labelling.options import LabelOptions
from ovsam_cli.labelling.planner import PreparedImage, ReadOptions, prepare_image
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.checkpoint import build_ovsam
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.structures import ImageRecord, Prompts
from ovsam_cli.vocabulary import Category, Vocabulary

NAMES = ("cat", "dog", "zebra")


def build_small_labeller(options: LabelOptions | None = None) -> Labeller:
    """On the CPU in float32, with random names."""
    torch.manual_seed(3)
    model = build_ovsam(SMALL).eval()
    text = torch.nn.functional.normalize(torch.randn(len(NAMES), 1, SMALL.text_dim), dim=-1)
    return Labeller(
        model=model,
        vocabulary=Vocabulary(
            "pets", tuple(Category(id, name, (name,)) for id, name in enumerate(NAMES, start=1))
        ),
        text_embeddings=text,
        text_hash="",
        fusion=Fusion(mode="auto", category_kind=torch.tensor([1, 1, 2])),
        options=options or LabelOptions(top_k=2),
        unknown_category_id=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def write_records(folder: Path, sizes: Sequence[tuple[int, int]]) -> tuple[ImageRecord, ...]:
    """Random pictures of these (height, width), `0.png` and so on."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, hw in enumerate(sizes):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (*hw, 3), dtype=np.uint8)).save(path)
        records.append(ImageRecord(path, path.name, number + 1))
    return tuple(records)


def make_label_prompts(kinds: str, hw: tuple[int, int], *, seed: int = 0) -> Prompts:
    """A random prompt a letter: p point, n positive and negative points, b box, a point in a box,
    m mask alone.
    """
    from ovsam_cli.masks import encode_mask

    rng, (height, width) = np.random.default_rng(seed), hw
    count = len(kinds)
    labels = np.full((count, 3), -1, np.int64)
    boxes = np.full((count, 4), np.nan, np.float32)
    masks = []
    for row, kind in enumerate(kinds):
        if kind in "pa":
            labels[row, row % 3] = 1  # filler may stand anywhere
        elif kind == "n":
            labels[row, 1:] = [1, 0]
        if kind in "ba":
            corners = np.sort(rng.random((2, 2)), axis=0) * 0.7 + [[0, 0], [0.3, 0.3]]
            boxes[row] = (corners * [width, height]).ravel()
        mask = np.zeros(hw, bool, order="F")
        mask[height // 4 : height // 2, width // 4 :] = True
        masks.append(encode_mask(mask) if kind == "m" else None)
    return Prompts(
        prompt_ids=tuple(f"{kind}{row}" for row, kind in enumerate(kinds)),
        image_index=np.zeros(count, np.int64),
        point_coords=(rng.random((count, 3, 2)) * [width, height]).astype(np.float32),
        point_labels=labels,
        boxes_xyxy=boxes,
        masks=tuple(masks),
        prompt_scores=np.full(count, np.nan, np.float32),
    )


def read_options(
    labeller: Labeller, kinds: Callable[[ImageRecord], str] | None = lambda record: "bp"
) -> ReadOptions:
    """Prompts of these kinds for each image; None for grid mode, which keeps images for crops."""

    def find(record: ImageRecord, hw: tuple[int, int]) -> tuple[Prompts, tuple[str, ...]]:
        assert kinds is not None
        return make_label_prompts(kinds(record), hw, seed=record.image_id), ()

    return ReadOptions(
        pixel_format=labeller.pixel_format,
        exif="apply",
        find_prompts=None if kinds is None else find,
        keeps_rgb=lambda record: kinds is None,
    )


def prepare_all(records: Sequence[ImageRecord], options: ReadOptions) -> list[PreparedImage]:
    """All images read; they must be good ones."""
    found = [prepare_image(record, options) for record in records]
    assert all(isinstance(image, PreparedImage) for image in found)
    return [image for image in found if isinstance(image, PreparedImage)]
