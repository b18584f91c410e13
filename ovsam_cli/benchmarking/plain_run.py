"""Images on disk to a COCO-like file in the reference's order of operations: the baseline R.

One image after another, float32, every prompt with its own copy of the image, masks at the image's
full size, pycocotools. With `prompts_per_call` 1 it is the loop of a demo, with 64 that of SAM's
automatic generator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from ovsam_cli.benchmarking.plain_model import (
    classify_plainly,
    decode_plainly,
    upscale_plainly,
)
from ovsam_cli.images import preprocess, read_image
from ovsam_cli.labelling.grid import prompts_from_grid
from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.masks import encode_mask, mask_iou
from ovsam_cli.model.mask_decoder import MaskDecoder
from ovsam_cli.model.ovsam import OVSAM, ImageFeatures
from ovsam_cli.structures import ImageGeometry, ImageRecord, Prompts, Rle


@dataclass(frozen=True, slots=True)
class NamedMask:
    """One answer: category id and mask."""

    category_id: int
    segmentation: Rle


# By file name and prompt.
Answers = Mapping[tuple[str, str], NamedMask]


@dataclass(frozen=True, slots=True)
class PlainRunner:
    """The model as it was loaded, before any rewrite for speed.

    Attributes:
        model: float32, evaluation mode.
        labeller: names, embeddings, fusion and device, which both sides share.
        prompts_per_call: of the decoder; None for all of an image at once.
    """

    model: OVSAM
    labeller: Labeller
    prompts_per_call: int | None = None

    @torch.inference_mode()
    def label(self, plan: RunPlan, target: Path) -> Answers:
        """Label a plan's images and write the answers to `target`."""
        answers: dict[tuple[str, str], NamedMask] = {}
        for record in plan.records:
            answers |= self._label_image(plan, record)
        rows = [
            {"file": file, "prompt": prompt, "category_id": one.category_id} | one.segmentation
            for (file, prompt), one in answers.items()
        ]
        target.write_text(json.dumps(rows), encoding="utf-8")
        return answers

    def _label_image(self, plan: RunPlan, record: ImageRecord) -> dict[tuple[str, str], NamedMask]:
        config, device = self.model.config, self.labeller.device
        rgb = read_image(record.path).rgb
        pixels, geometry = preprocess(
            rgb, model_size=config.model_size, mean=config.pixel_mean, std=config.pixel_std
        )
        prompts = _find_prompts(plan, record, geometry)
        frame = torch.from_numpy(pixels)[None].to(device)
        features = self.model.encode_images(frame, (geometry.input_hw,))
        answers: dict[tuple[str, str], NamedMask] = {}
        for chunk in prompts.split(self.prompts_per_call or len(prompts)):
            found = self._label_prompts(features, chunk, geometry)
            keys = [(record.file_name, str(prompt_id)) for prompt_id in chunk.prompt_ids]
            answers |= dict(zip(keys, found, strict=True))
        return answers

    def _label_prompts(
        self, features: ImageFeatures, prompts: Prompts, geometry: ImageGeometry
    ) -> list[NamedMask]:
        model, labeller = self.model, self.labeller
        model_prompts = to_model_prompts(prompts, [geometry], device=labeller.device)
        mask_logits = decode_plainly(
            cast(MaskDecoder, model.mask_decoder),
            features.image_embeddings,
            model.pe.image_pe(),
            model.encode_prompts(model_prompts),
        )
        class_logits = classify_plainly(
            model, features, mask_logits, model_prompts, labeller.text_embeddings, labeller.fusion
        )
        best = class_logits[:, :-1].argmax(dim=1).cpu().numpy()
        masks = upscale_plainly(mask_logits, geometry).cpu().numpy()
        ids = labeller.vocabulary.ids
        return [
            NamedMask(ids[index], encode_mask(mask))
            for index, mask in zip(best, masks, strict=True)
        ]


def _find_prompts(plan: RunPlan, record: ImageRecord, geometry: ImageGeometry) -> Prompts:
    if plan.prompts is not None:
        return plan.prompts.for_image(record, geometry.original_hw)[0]
    grid = plan.request.options.grid
    assert grid is not None, "a plan has prompts or a grid"
    return prompts_from_grid(geometry.original_hw, points_per_side=grid.points_per_side)


def read_answers(annotations: Path) -> Answers:
    """What `ovsam label` wrote, in the same form."""
    found = json.loads(annotations.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in found["images"]}
    return {
        (names[row["image_id"]], str(row["attributes"]["prompt_id"])): NamedMask(
            row["category_id"], row["segmentation"]
        )
        for row in found["annotations"]
    }


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two sets of answers agree on the prompts that ours answers.

    Attributes:
        num_matched: answers of ours; 0 shows nothing.
        num_missing: of those, answers that the other side does not have.
        same_names: share with the same name.
        mean_iou: of the masks.
    """

    num_matched: int
    num_missing: int
    same_names: float
    mean_iou: float


def compare_answers(ours: Answers, baseline: Answers) -> Agreement:
    """Match by image and prompt; the baseline may answer more, since it filters nothing."""
    keys = [key for key in ours if key in baseline]
    if not keys:
        return Agreement(0, len(ours), float("nan"), float("nan"))
    pairs = [(ours[key], baseline[key]) for key in keys]
    ious = [float(mask_iou([a.segmentation], [b.segmentation])[0, 0]) for a, b in pairs]
    same = sum(a.category_id == b.category_id for a, b in pairs)
    return Agreement(len(keys), len(ours) - len(keys), same / len(pairs), sum(ious) / len(pairs))
