"""The model's answers to the prompts of one image, or a baseline's, as a row of the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
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
from ovsam_cli.evaluation.prompting import PromptRule, build_rule_prompts, find_boxes
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.labelling.stages import Labeller, decode, encode
from ovsam_cli.masks import encode_mask_logits
from ovsam_cli.model.clip2sam import compute_class_logits, compute_mask_boxes
from ovsam_cli.model.ovsam import ImageFeatures
from ovsam_cli.model.prompt_encoder import ModelPrompts
from ovsam_cli.raster import RgbArray
from ovsam_cli.structures import FloatArray, ImageGeometry, ImageRecord, Rle

PROMPTS_PER_BATCH = 32
IMAGES_AHEAD = 2
Shape = Literal["box", "ellipse"]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An annotated image, read and ready for the model.

    Attributes:
        image: with its objects.
        rgb: (H, W, 3) uint8, original frame.
        pixels: (3, S, S) float32, padded model frame.
        geometry: the frames.
    """

    image: InstanceImage
    rgb: RgbArray
    pixels: FloatArray
    geometry: ImageGeometry


@dataclass(frozen=True, slots=True)
class Asker:
    """What is asked of every image.

    Attributes:
        labeller: the model with its names.
        prompts: how objects are prompted.
        names: the accuracies wanted; None for masks alone.
        temperature: scores are the softmax of logits divided by it.
    """

    labeller: Labeller
    prompts: PromptRule
    names: NamingRules | None
    temperature: float = 1.0

    def answer(self, opened: OpenImage) -> tuple[InstanceRow, ...]:
        """Rows of an image's objects, in their order."""
        rows: list[InstanceRow] = []
        with torch.inference_mode():
            pixels = torch.from_numpy(opened.pixels)[None].to(self.labeller.device)
            features = encode(self.labeller, pixels, (opened.geometry,))
            instances = opened.image.instances
            for start in range(0, len(instances), PROMPTS_PER_BATCH):
                chunk = instances[start : start + PROMPTS_PER_BATCH]
                rows += self._answer_chunk(opened, features, chunk)
        return tuple(rows)

    def compute_logits(
        self, opened: OpenImage, features: ImageFeatures, chunk: Sequence[Instance]
    ) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, h, w) mask logits, and (B, K + 1) class logits on the CPU for each logit rule."""
        prompts = build_rule_prompts(chunk, opened.geometry, self.prompts)
        prompts = prompts.to(self.labeller.device)
        mask_logits = decode(self.labeller, features, prompts).mask_logits
        if self.names is None:
            return mask_logits, []
        truth = find_boxes(chunk, "annotated")
        seen = _Seen(opened, features, mask_logits, prompts, truth)
        return mask_logits, [self._classify(seen, rule) for rule in self.names.logit_rules]

    def _answer_chunk(
        self, opened: OpenImage, features: ImageFeatures, chunk: Sequence[Instance]
    ) -> list[InstanceRow]:
        mask_logits, class_logits = self.compute_logits(opened, features, chunk)
        array = mask_logits[:, 0].float().cpu().numpy()
        found = encode_mask_logits(array, opened.geometry).segmentations
        return build_rows(chunk, found, self._name(chunk, class_logits))

    def _name(self, chunk: Sequence[Instance], class_logits: Sequence[Tensor]) -> Named | None:
        if self.names is None:
            return None
        rows = np.asarray([self.names.row_of_category[one.category_id] for one in chunk])
        ranks = [
            rank_names(class_logits[rule.logits], torch.from_numpy(rows), rule)
            for rule in self.names.rank_rules
        ]
        probs = (class_logits[0] / self.temperature).softmax(dim=-1)[:, :-1]
        scores, said = probs.max(dim=-1)
        return Named(said.tolist(), scores.tolist(), np.stack(ranks, axis=1).tolist())

    def _classify(self, seen: _Seen, rule: LogitRule) -> Tensor:
        labeller = self.labeller
        if rule.clip_boxes == "crop":
            return self._classify_crops(seen)
        boxes: FloatArray | None = None
        if rule.clip_boxes != "own":
            boxes = seen.truth_xyxy
            if rule.clip_boxes == "truth":
                boxes = seen.opened.geometry.to_input_frame(boxes)
        with labeller.autocast():
            logits = labeller.model.classify(
                seen.features,
                seen.mask_logits,
                seen.prompts,
                labeller.text_embeddings,
                rule.fusion,
                clip_boxes_xyxy=None
                if boxes is None
                else torch.from_numpy(boxes).to(labeller.device),
            )
        return logits.float().cpu()

    def _classify_crops(self, seen: _Seen) -> Tensor:
        """Names of the image cut to each prompt's box, or the mask's, and encoded on its own."""
        model, prompts = self.labeller.model, seen.prompts
        mask_boxes = compute_mask_boxes(seen.mask_logits, model.config.model_size)
        boxes = torch.where(prompts.has_box[:, None], prompts.model_boxes_xyxy, mask_boxes)
        original = seen.opened.geometry.to_original_frame(boxes.float().cpu().numpy())
        regions = embed_crops(self.labeller, seen.opened.rgb, original)
        text = self.labeller.text_embeddings
        return compute_class_logits(regions, text, model.config.logit_scale).float().cpu()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What names are read from: B prompts of one image and their masks."""

    opened: OpenImage
    features: ImageFeatures
    mask_logits: Tensor
    prompts: ModelPrompts
    truth_xyxy: FloatArray  # annotated boxes, original frame


@dataclass(frozen=True, slots=True)
class Named:
    """Names of B objects: rows of the vocabulary, their scores, and (B, rules) ranks."""

    said_rows: list[int]
    scores: list[float]
    ranks: list[list[int]]


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
    labeller: Labeller,
    answer: Callable[[OpenImage], Answer],
) -> Generator[tuple[ImageRecord, Answer | ImageError]]:
    """Answer images one by one, or say why not; the next ones are read meanwhile."""

    def read(row: int) -> OpenImage | ImageError:
        try:
            return open_for(labeller, source.load(row))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        waiting: deque[tuple[ImageRecord, Future[OpenImage | ImageError]]] = deque()
        try:
            for row in rows:
                waiting.append((source.records[row], reader.submit(read, row)))
                if len(waiting) > IMAGES_AHEAD:
                    yield _answer_next(waiting, answer)
            while waiting:
                yield _answer_next(waiting, answer)
        finally:
            reader.shutdown(wait=True, cancel_futures=True)


def _answer_next(
    waiting: deque[tuple[ImageRecord, Future[OpenImage | ImageError]]],
    answer: Callable[[OpenImage], Answer],
) -> tuple[ImageRecord, Answer | ImageError]:
    record, future = waiting.popleft()
    found = future.result()
    return record, found if isinstance(found, ImageError) else answer(found)


def open_for(labeller: Labeller, image: InstanceImage) -> OpenImage:
    """Read an image for the model.

    Raises:
        ImageError: it cannot be read, or has another size than its annotations say.
    """
    wanted = labeller.pixel_format
    rgb = read_image(Path(image.path)).rgb
    pixels, geometry = preprocess(
        rgb, model_size=wanted.model_size, mean=wanted.mean, std=wanted.std
    )
    if geometry.original_hw != image.original_hw:
        raise ImageError(
            f"{image.path}: {geometry.original_hw} pixels (height, width), but its annotations "
            f"are of {image.original_hw}; give the images that were annotated",
            reason="wrong_size",
        )
    return OpenImage(image, rgb, pixels, geometry)
