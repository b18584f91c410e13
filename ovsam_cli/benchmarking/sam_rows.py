"""Other software on the same images: SAM's automatic generator (G6), SAM and CLIP on crops (G7).

They are other models, so nothing can be equal; what is checked is that both sides answer as many
prompts. Weights are random on both sides: the figures are speed, not quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ovsam_cli.benchmarking.comparison import Comparison, Parity, time_in_turns
from ovsam_cli.benchmarking.labelling_rows import (
    Contenders,
    Work,
    describe,
    label_anew,
    open_contenders,
    plan_work,
)
from ovsam_cli.benchmarking.measurement import Row, Skipped
from ovsam_cli.benchmarking.plain_run import PlainRunner
from ovsam_cli.benchmarking.ready_model import SEED
from ovsam_cli.benchmarking.settings import MINIMAL, BenchSettings
from ovsam_cli.images import read_image
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.masks import encode_mask
from ovsam_cli.model.clip_encoder import ClipTrunk
from ovsam_cli.raster import RgbArray

if TYPE_CHECKING:
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam


def compare_with_sam(settings: BenchSettings) -> list[Row]:
    """G6, G7: SAM ViT-H on a GPU, ViT-B on a CPU; needs the package segment-anything."""
    try:
        sam = _build_sam(settings)
    except ImportError:
        reason = "segment-anything is not installed (extra bench)"
        return [
            Skipped("G6", "SAM's automatic generator", reason),
            Skipped("G7", "SAM and CLIP on crops", reason),
        ]
    contenders = open_contenders(settings)
    return [
        compare_generators(settings, contenders, sam),
        *compare_crops(settings, contenders, sam),
    ]


def _build_sam(settings: BenchSettings) -> Sam:
    """SAM of random weights; ViT-B on a CPU, where ViT-H takes a minute an image."""
    from segment_anything import sam_model_registry

    kind = "vit_h" if settings.device.type == "cuda" else "vit_b"
    if settings.sizes == MINIMAL:
        return _build_small_sam()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        sam: Sam = sam_model_registry[kind](checkpoint=None)
    return sam.eval().to(settings.device)


def _build_small_sam() -> Sam:
    """Two narrow blocks at SAM's image size, for tests."""
    from segment_anything.build_sam import _build_sam as build_any_sam

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        sam: Sam = build_any_sam(32, 2, 2, (1,), checkpoint=None)
    return sam.eval()


def compare_generators(settings: BenchSettings, contenders: Contenders, sam: Sam) -> Comparison:
    """G6: SamAutomaticMaskGenerator / our grid, which also names the masks."""
    from segment_anything import SamAutomaticMaskGenerator

    sizes, is_cuda = settings.sizes, settings.device.type == "cuda"
    side = sizes.grid_side
    plan = plan_work(settings, contenders.request, Work("G6", "", sizes.vga_hw, None, 1))
    generator = SamAutomaticMaskGenerator(sam, points_per_side=side)
    (record,) = plan.records
    baseline, ours = time_in_turns(
        lambda: generator.generate(read_image(record.path).rgb),
        lambda: label_anew(settings, contenders.ours, plan),
        rounds=settings.rounds,
        clock=settings.clock,
    )
    difference = len(generator.point_grids[0]) - side**2
    kind = "ViT-H" if is_cuda else "ViT-B"
    return Comparison(
        "G6",
        f"SAM {kind} automatic generator / ours with names, {side} x {side} points, "
        f"{describe(sizes.vga_hw)}",
        settings.clock,
        baseline,
        ours,
        (Parity("points decoded, difference", difference, 0),),
        target=80.0 if settings.has_targets else None,
        note="another model: only the number of points can be compared. Random weights pass none "
        "of the generator's default thresholds, so its later stages cost nothing here, while "
        f"ours names every distinct mask (preset {settings.preset})",
    )


def compare_crops(settings: BenchSettings, contenders: Contenders, sam: Sam) -> list[Comparison]:
    """G7: SAM for masks and CLIP on a crop of each box / ours; box by box, and batched."""
    sizes, is_cuda = settings.sizes, settings.device.type == "cuda"
    count = 1 if not is_cuda else max(sizes.images // 4, 1)
    work = Work("G7", "", sizes.vga_hw, sizes.boxes, count)
    plan = plan_work(settings, contenders.request, work)
    kind = "ViT-H" if is_cuda else "ViT-B"
    rows = []
    for is_batched, target in ((False, 30.0), (True, 3.5)):
        runner = CropRunner(contenders.plain, sam, contenders.ours.labeller.dtype, is_batched)
        found = runner.label(plan)
        baseline, ours = time_in_turns(
            partial(runner.label, plan),
            lambda: label_anew(settings, contenders.ours, plan),
            rounds=settings.rounds,
            clock=settings.clock,
        )
        way = "all boxes of an image at once, ours' number format" if is_batched else "box by box"
        rows.append(
            Comparison(
                "G7",
                f"SAM {kind} and CLIP on crops, {way} / ours, {sizes.boxes} boxes, "
                f"{describe(sizes.vga_hw)}",
                settings.clock,
                baseline,
                ours,
                (Parity("boxes answered, difference", found - sizes.boxes * count, 0),),
                target=target if settings.has_targets else None,
                note="other models: only the number of answers can be compared; random weights",
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class CropRunner:
    """SAM's mask of every box, CLIP's name of the crop in it, masks at the image's size.

    Attributes:
        plain: lends CLIP's image tower, text embeddings and device.
        sam: any SAM.
        dtype: of autocast when batched; box by box runs in float32.
        is_batched: all boxes of an image in one call.
    """

    plain: PlainRunner
    sam: Sam
    dtype: torch.dtype
    is_batched: bool

    @torch.inference_mode()
    def label(self, plan: RunPlan) -> int:
        """Label the boxes of a plan's images; returns the number of answers."""
        from segment_anything import SamPredictor

        predictor, device = SamPredictor(self.sam), self.plain.labeller.device
        assert plan.prompts is not None
        num_answers = 0
        for record in plan.records:
            rgb = read_image(record.path).rgb
            prompts, _ = plan.prompts.for_image(record, (rgb.shape[0], rgb.shape[1]))
            boxes = torch.from_numpy(prompts.boxes_xyxy).to(device)
            size = len(boxes) if self.is_batched else 1
            is_half = self.is_batched and self.dtype != torch.float32
            with torch.autocast(device.type, dtype=self.dtype, enabled=is_half):
                predictor.set_image(rgb)
                for chunk in torch.split(boxes, size):
                    num_answers += self._label_boxes(predictor, rgb, chunk)
        return num_answers

    def _label_boxes(self, predictor: SamPredictor, rgb: RgbArray, boxes: Tensor) -> int:
        """Masks and names of (B, 4) boxes of one image; returns how many have both."""
        height, width = rgb.shape[:2]
        framed = predictor.transform.apply_boxes_torch(boxes, (height, width))
        masks, _, _ = predictor.predict_torch(None, None, boxes=framed, multimask_output=False)
        trunk = cast(ClipTrunk, self.plain.model.backbone)
        side = self.plain.model.config.trunk_image_size
        pixels = torch.from_numpy(rgb.copy()).to(boxes.device)
        pixels = pixels.permute(2, 0, 1).float()
        crops = []
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            crop = pixels[None, :, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
            crops.append(F.interpolate(crop, (side, side), mode="bilinear"))
        embeddings = trunk.head(trunk(torch.cat(crops))[-1]).float()
        text = self.plain.labeller.text_embeddings[:, 0]
        names = (F.normalize(embeddings, dim=-1) @ text.T).argmax(dim=1).tolist()
        encoded = [encode_mask(mask) for mask in masks[:, 0].cpu().numpy()]
        return min(len(names), len(encoded))
