"""Training of `tiny`'s names: the region head, on descriptors of true boxes computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovsam_cli.errors import InputError
from ovsam_cli.model.clip2sam import compute_class_logits
from ovsam_cli.model.ovsam import OVSAM
from ovsam_cli.model.tiny_regions import describe_regions
from ovsam_cli.outputs.files import write_whole_file
from ovsam_cli.structures import FloatArray
from ovsam_cli.training.bank import BankView, find_views, read_view
from ovsam_cli.training.data import to_pixels
from ovsam_cli.training.losses import classification_loss
from ovsam_cli.training.name_scenes import NameScene, compose_name_scene
from ovsam_cli.training.old_prompt_sampling import find_tight_box
from ovsam_cli.training.scenes.compose import load_scene_assets

BOXES_PER_OBJECT = 2  # the tight box, and one with a mask's faults
NUM_BACKGROUND = 2  # boxes a view with no object in them
BOX_NOISE = 0.08
BACKGROUND_NAME = ""  # objects without a name are left out when regions are described
DROPOUT = 0.3


@dataclass(frozen=True, slots=True)
class Regions:
    """Described boxes: (n, DESCRIPTOR_SIZE) float16 descriptors and (n,) names, "" background."""

    descriptors: Tensor
    names: tuple[str, ...]


def describe_bank(
    model: OVSAM, bank: Path, kept: Path, on_view_done: Callable[[int], None] | None = None
) -> Regions:
    """Describe the boxes of every view; what `kept` already holds is not computed again.

    Args:
        model: its trunk head is used.
        bank: of views.
        kept: folder for one file a view.
        on_view_done: called with the number of views done.
    """
    kept.mkdir(parents=True, exist_ok=True)
    paths = find_views(bank)
    descriptors, names = [], []
    for number, path in enumerate(paths):
        file = kept / f"{path.stem}.pt"
        if not file.exists():
            rng = np.random.default_rng([1, int(path.stem)])
            with write_whole_file(file) as target:
                torch.save(_describe_view(model, read_view(path), rng), target)
        found = torch.load(file, weights_only=True)
        descriptors.append(found["descriptors"])
        names += json.loads(found["names"])
        if on_view_done is not None:
            on_view_done(number + 1)
    if not names:
        raise InputError(f"{bank}: no named objects in the bank; fill it from scenes with names")
    return Regions(torch.cat(descriptors), tuple(names))


def describe_pages(model: OVSAM, sources: Path, kept: Path, num_pages: int, seed: int) -> Regions:
    """Compose pages of drawings and describe their boxes; finished pages are read again.

    Args:
        model: trunk and pixel statistics are used.
        sources: folder with the drawings' archives.
        kept: folder for one file a page.
        num_pages: pages in all.
        seed: together with a page's number it decides the page.
    """
    assets = load_scene_assets(sources, "train")
    kept.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(num_pages):
        file = kept / f"page-{number:06d}.pt"
        if not file.exists():
            rng = np.random.default_rng([seed, 2, number])
            page = compose_name_scene(assets, model.config.model_size, rng)
            with write_whole_file(file) as target:
                torch.save(_describe_page(model, page, rng), target)
        found.append(torch.load(file, weights_only=True))
    names = [name for one in found for name in json.loads(one["names"])]
    return Regions(torch.cat([one["descriptors"] for one in found]), tuple(names))


def join_regions(parts: Sequence[Regions]) -> Regions:
    """Regions of several sources as one."""
    names = tuple(name for part in parts for name in part.names)
    return Regions(torch.cat([part.descriptors for part in parts]), names)


def _describe_page(model: OVSAM, page: NameScene, rng: np.random.Generator) -> dict[str, object]:
    """The tight box of every drawing, and one with a mask's faults."""
    config = model.config
    pixels = to_pixels(page.rgb, config.model_size, config.pixel_mean, config.pixel_std)
    boxes = page.boxes_xyxy
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    noisy = (boxes + rng.normal(0, BOX_NOISE, boxes.shape) * sides).clip(0, config.model_size)
    rows = torch.from_numpy(np.concatenate([boxes, noisy]).astype(np.float32))
    with torch.inference_mode():
        features = model.fpn_neck(model.backbone(torch.from_numpy(pixels)[None]))
        index = torch.zeros(len(rows), dtype=torch.int64)
        descriptors = describe_regions(features, rows, index).half()
    return {"descriptors": descriptors.clone(), "names": json.dumps(page.names * 2)}


def _describe_view(model: OVSAM, view: BankView, rng: np.random.Generator) -> dict[str, object]:
    size = view.masks.shape[-1]
    boxes, names = [], []
    for mask, name in zip(view.masks, view.names, strict=True):
        if name == BACKGROUND_NAME:
            continue
        tight = find_tight_box(mask)
        sides = np.tile(tight[2:] - tight[:2], 2)
        for copy in range(BOXES_PER_OBJECT):
            noise = rng.normal(0, BOX_NOISE, 4) * sides * (copy > 0)
            boxes.append((tight + noise).clip(0, size))
            names.append(name)
    for _ in range(NUM_BACKGROUND):
        box = _empty_box(view, rng)
        if box is not None:
            boxes.append(box)
            names.append(BACKGROUND_NAME)
    rows = torch.from_numpy(np.asarray(boxes, np.float32).reshape(-1, 4))
    with torch.inference_mode():
        features = model.fpn_neck(view.trunk_maps)
        index = torch.zeros(len(rows), dtype=torch.int64)
        descriptors = describe_regions(features, rows, index).half()
    return {"descriptors": descriptors.clone(), "names": json.dumps(names)}


def _empty_box(view: BankView, rng: np.random.Generator) -> FloatArray | None:
    """A random box that objects fill by less than a tenth, or None."""
    size = view.masks.shape[-1]
    occupied = np.logical_or.reduce(view.masks)
    for _ in range(10):
        sides = np.exp(rng.uniform(np.log(16), np.log(200), 2))
        left, top = rng.uniform(0, size - sides)
        box = np.asarray((left, top, left + sides[0], top + sides[1]), np.float32)
        x0, y0, x1, y1 = box.astype(int)
        if occupied[y0:y1, x0:x1].mean() < 0.1:
            return box
    return None


class NameTraining:
    """The head, its average and the names it learns.

    Args:
        head: descriptors (B, DESCRIPTOR_SIZE) -> (B, text_dim).
        regions: to learn from.
        vectors: (text_dim,) unit vector of each name.
        logit_scale: log of the factor on cosine similarities.
    """

    def __init__(
        self,
        head: nn.Module,
        regions: Regions,
        vectors: Mapping[str, FloatArray],
        logit_scale: float,
    ) -> None:
        self.head = head
        names = sorted({name for name in regions.names if name in vectors})
        rows = {name: row for row, name in enumerate(names)} | {BACKGROUND_NAME: len(names)}
        kept = [number for number, name in enumerate(regions.names) if name in rows]
        self.descriptors = regions.descriptors[kept]
        self.labels = torch.tensor([rows[regions.names[number]] for number in kept])
        self.text = torch.from_numpy(np.stack([vectors[name] for name in names]))[:, None]
        self.logit_scale = logit_scale
        counts = torch.bincount(self.labels, minlength=len(names) + 1).float()
        # Rare names are drawn more often than their share, common ones less.
        self.probs = counts[self.labels].rsqrt()

    def compute_loss(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Loss of one random batch (spec section 7.2), with noise on the descriptors."""
        rows = torch.multinomial(self.probs, batch_size, replacement=True, generator=generator)
        descriptors = F.dropout(self.descriptors[rows].float(), DROPOUT)
        logits = compute_class_logits(self.head(descriptors), self.text, self.logit_scale)
        return classification_loss(logits, self.labels[rows])


def train_names(
    training: NameTraining,
    *,
    num_steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Train the head with one warm-up and one cosine over `num_steps`."""
    torch.manual_seed(seed)  # of the dropout
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(training.head.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        # A warm-up of exactly one step divides by zero in torch.
        optimizer,
        learning_rate,
        total_steps=num_steps,
        pct_start=max(0.05, min(0.9, 2 / num_steps)),
    )
    total = 0.0
    for step in range(1, num_steps + 1):
        optimizer.zero_grad(set_to_none=True)
        loss = training.compute_loss(batch_size, generator)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if step % 100 == 0:
            if on_log is not None:
                on_log({"step": step, "class": round(total / 100, 4)})
            total = 0.0
