"""The model's answers to the prompts of a batch of images, or a baseline's, as journal rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from ovsam_cli.errors import ImageError
from ovsam_cli.evaluation.baselines import draw_baseline
from ovsam_cli.evaluation.boundaries import compute_boundary_iou
from ovsam_cli.evaluation.crop_embeddings import embed_crops
from ovsam_cli.evaluation.datasets import Instance, InstanceImage
from ovsam_cli.evaluation.instance_rows import InstanceRow
from ovsam_cli.evaluation.instance_store import InstanceSource
from ovsam_cli.evaluation.metrics import compute_ious
from ovsam_cli.evaluation.naming_rules import LogitRule, NamingRules, RankRule
from ovsam_cli.evaluation.open_images import OpenImage, Target, iter_opened, split_by_image
from ovsam_cli.evaluation.prompting import PromptRule, build_rule_prompts, find_boxes
from ovsam_cli.labelling.stages import Labeller, decode, encode
from ovsam_cli.labelling.work_sizes import WorkSizes, free_device_memory, is_out_of_memory
from ovsam_cli.masks import encode_mask_logits
from ovsam_cli.model.clip2sam import compute_class_logits, compute_mask_boxes
from ovsam_cli.model.ovsam import ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.structures import FloatArray, ImageRecord, Rle

Shape = Literal["box", "ellipse"]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class AskedChunk:
    """What the model said of some objects of a batch of images.

    Attributes:
        targets: B objects, those of an image together.
        mask_logits: (B, 1, h, w) float, padded model frame.
        class_logits: (B, K + 1) float32 on the CPU for each logit rule; none without names.
    """

    targets: tuple[Target, ...]
    mask_logits: Tensor
    class_logits: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """What is asked of every image.

    Attributes:
        labeller: the model with its names.
        prompts: how objects are prompted.
        names: the accuracies wanted; None for masks alone.
        sizes: images and prompts a step.
        temperature: scores are the softmax of logits divided by it.
    """

    labeller: Labeller
    prompts: PromptRule
    names: NamingRules | None
    sizes: WorkSizes
    temperature: float = 1.0

    def answer(self, batch: Sequence[OpenImage]) -> list[tuple[InstanceRow, ...]]:
        """Rows of each image's objects, in their order."""
        rows: list[list[InstanceRow]] = [[] for _ in batch]
        targets = [Target(n, one) for n, opened in enumerate(batch) for one in opened.instances]
        with torch.inference_mode():
            for asked in self.ask(batch, targets):
                array = asked.mask_logits[:, 0].float().cpu().numpy()
                named = self._name(asked)
                for number, part in split_by_image(asked.targets):
                    found = encode_mask_logits(array[part], batch[number].geometry).segmentations
                    chunk = [one.instance for one in asked.targets[part]]
                    rows[number] += build_rows(chunk, found, named and named.take(part))
        return [tuple(one) for one in rows]

    def ask(self, batch: Sequence[OpenImage], targets: Sequence[Target]) -> Iterator[AskedChunk]:
        """Encode images together and decode objects of all of them together, chunk by chunk.

        Call it in inference mode.

        Args:
            batch: images.
            targets: objects that are asked about, those of an image together.
        """
        labeller = self.labeller
        pixels = torch.from_numpy(np.stack([one.pixels for one in batch])).to(labeller.device)
        features = encode(labeller, pixels, [one.geometry for one in batch])
        for start in range(0, len(targets), self.sizes.prompts):
            chunk = tuple(targets[start : start + self.sizes.prompts])
            geometries = [one.geometry for one in batch]
            prompts = build_rule_prompts(chunk, geometries, self.prompts).to(labeller.device)
            mask_logits = decode(labeller, features, prompts).mask_logits
            class_logits: tuple[Tensor, ...] = ()
            if self.names is not None:
                seen = _Seen(batch, chunk, features, mask_logits, prompts)
                class_logits = tuple(self._classify(seen, one) for one in self.names.logit_rules)
            yield AskedChunk(chunk, mask_logits, class_logits)

    def _name(self, asked: AskedChunk) -> Named | None:
        if self.names is None:
            return None
        known = self.names.row_of_category
        rows = np.asarray([known[one.instance.category_id] for one in asked.targets])
        ranks = [
            rank_names(asked.class_logits[rule.logits], torch.from_numpy(rows), rule)
            for rule in self.names.rank_rules
        ]
        probs = (asked.class_logits[0] / self.temperature).softmax(dim=-1)[:, :-1]
        scores, said = probs.max(dim=-1)
        return Named(said.tolist(), scores.tolist(), np.stack(ranks, axis=1).tolist())

    def _classify(self, seen: _Seen, rule: LogitRule) -> Tensor:
        labeller = self.labeller
        if rule.clip_boxes == "crop":
            return self._classify_crops(seen)
        boxes: Tensor | None = None
        if rule.clip_boxes != "own":
            array = seen.find_annotated(is_scaled=rule.clip_boxes == "truth")
            boxes = torch.from_numpy(array).to(labeller.device)
        with labeller.autocast():
            logits = labeller.model.classify(
                seen.features,
                seen.mask_logits,
                seen.prompts,
                labeller.text_embeddings,
                rule.fusion,
                clip_boxes_xyxy=boxes,
            )
        return logits.float().cpu()

    def _classify_crops(self, seen: _Seen) -> Tensor:
        """Names of the image cut to each prompt's box, or the mask's, and encoded on its own."""
        model, prompts = self.labeller.model, seen.prompts
        mask_boxes = compute_mask_boxes(seen.mask_logits, model.config.model_size)
        boxes = torch.where(prompts.has_box[:, None], prompts.model_boxes_xyxy, mask_boxes)
        array: FloatArray = boxes.float().cpu().numpy()
        regions = []
        for number, part in split_by_image(seen.targets):
            opened = seen.batch[number]
            original = opened.geometry.to_original_frame(array[part])
            regions.append(embed_crops(self.labeller, opened.rgb, original))
        text = self.labeller.text_embeddings
        logits = compute_class_logits(torch.cat(regions), text, model.config.logit_scale)
        return logits.float().cpu()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What names are read from: B prompts of a batch and their masks."""

    batch: Sequence[OpenImage]
    targets: tuple[Target, ...]
    features: ImageFeatures
    mask_logits: Tensor
    prompts: ModelPrompts

    def find_annotated(self, *, is_scaled: bool) -> FloatArray:
        """(B, 4) annotated boxes: input frame, or left in original pixels (spec section 11, Q1)."""
        found = []
        for number, part in split_by_image(self.targets):
            boxes = find_boxes([one.instance for one in self.targets[part]], "annotated")
            geometry = self.batch[number].geometry
            found.append(geometry.to_input_frame(boxes) if is_scaled else boxes)
        return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Named:
    """Names of B objects: rows of the vocabulary, their scores, and (B, rules) ranks."""

    said_rows: list[int]
    scores: list[float]
    ranks: list[list[int]]

    def take(self, part: slice) -> Named:
        """Those of some of the objects."""
        return Named(self.said_rows[part], self.scores[part], self.ranks[part])


def rank_names(class_logits: Tensor, true_rows: Tensor, rule: RankRule) -> np.ndarray:
    """(B,) int64: how many competing names beat the true one; -1 where it does not compete.

    Args:
        class_logits: (B, K + 1) float; the last column, background, does not compete.
        true_rows: (B,) int64 below K, or -1.
        rule: which names compete.
    """
    competes = torch.from_numpy(rule.competes)
    names = class_logits[:, :-1]
    own = true_rows.clamp(min=0)
    beats = (names > names.gather(1, own[:, None])) & competes
    counts = (true_rows >= 0) & competes[own]
    ranks: np.ndarray = torch.where(counts, beats.sum(dim=1), -1).numpy()
    return ranks


def build_rows(
    chunk: Sequence[Instance], found: Sequence[Rle], named: Named | None
) -> list[InstanceRow]:
    """Compare masks with those of the objects."""
    ious = compute_ious(found, [one.segmentation for one in chunk]).tolist()
    return [
        InstanceRow(
            annotation_id=one.annotation_id,
            category_id=one.category_id,
            area=one.area,
            iou=ious[row],
            boundary_iou=compute_boundary_iou(found[row], one.segmentation),
            segmentation=found[row],
            said_row=None if named is None else named.said_rows[row],
            score=float("nan") if named is None else named.scores[row],
            ranks=() if named is None else tuple(named.ranks[row]),
        )
        for row, one in enumerate(chunk)
    ]


def draw_rows(image: InstanceImage, shape: Shape) -> tuple[InstanceRow, ...]:
    """What costs nothing: the box of each object filled, or the ellipse in it."""
    found = [draw_baseline(one.segmentation, shape) for one in image.instances]
    return tuple(build_rows(image.instances, found, None))


def iter_answers(
    source: InstanceSource,
    rows: Sequence[int],
    asker: Asker,
    answer: Callable[[Sequence[OpenImage]], list[Answer]],
) -> Generator[list[tuple[ImageRecord, Answer | ImageError]]]:
    """Answer images batch by batch, or say why not; the next ones are read meanwhile."""
    for batch in iter_opened(source, rows, asker.labeller, asker.sizes.images):
        good = [one for _, one in batch if isinstance(one, OpenImage)]
        found = iter(_answer_in_steps(good, asker.sizes, answer))
        yield [
            (record, one if isinstance(one, ImageError) else next(found)) for record, one in batch
        ]


def _answer_in_steps(
    images: Sequence[OpenImage],
    sizes: WorkSizes,
    answer: Callable[[Sequence[OpenImage]], list[Answer]],
) -> list[Answer]:
    """Answer as many at once as memory allows."""
    found: list[Answer] = []
    while len(found) < len(images):
        step = images[len(found) : len(found) + sizes.images]
        try:
            found += answer(step)
            continue
        except (MemoryError, RuntimeError) as error:
            can_shrink = is_out_of_memory(error) and (
                sizes.shrink_images(len(step)) or sizes.shrink_prompts(sizes.prompts)
            )
            if not can_shrink:
                raise
        free_device_memory()  # the error is gone, and with it what it held
    return found
