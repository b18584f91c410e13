"""How CLIP2SAM is trained: the published schedules, and the one of the bundled model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ovsam_cli.training.augmentation import AugmentationOptions
from ovsam_cli.training.clip2sam import Clip2SamOptions, MapNoise
from ovsam_cli.training.prompt_sampling import MixedPrompts, PromptRule, PublishedPrompts
from ovsam_cli.training.region_sampling import RegionOptions

RecipeName = Literal["coco", "lvis", "tiny"]
ClassSplit = Literal["all", "coco48", "lvis-norare"]
PUBLISHED_PROMPTS = 40


@dataclass(frozen=True, slots=True)
class Clip2SamRecipe:
    """A schedule; the defaults are those published for COCO (spec section 7.2).

    Attributes:
        losses: what is trained, and on which points.
        augmentation: of views; the model frame is the model's.
        prompts: the rule they are drawn by.
        regions: boxes to name besides the prompts' own, or None.
        classes: whose annotations are used.
        images_a_step: of all processes and accumulated micro-batches together.
        images_per_batch: of a micro-batch of one process.
        epochs: passes over the images; for several data sets over as many images as they have.
        max_steps: instead of `epochs`, or None.
        learning_rate, weight_decay, gradient_clip, warmup_steps, schedule: of the loop.
        rate_factors: learning rate factors of trained parts, by their paths.
        average_decay: of the weights' moving average; None for none.
        is_half: written weights are rounded to half precision.
    """

    losses: Clip2SamOptions = field(default_factory=Clip2SamOptions)
    augmentation: AugmentationOptions = field(
        # Prompts are drawn from the first objects alone, so further ones need no masks.
        default_factory=lambda: AugmentationOptions(max_objects=PUBLISHED_PROMPTS)
    )
    prompts: PromptRule = field(default_factory=lambda: PublishedPrompts(PUBLISHED_PROMPTS))
    regions: RegionOptions | None = None
    classes: ClassSplit = "coco48"
    images_a_step: int = 16
    images_per_batch: int = 2
    epochs: int = 12
    max_steps: int | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    gradient_clip: float = 0.01
    warmup_steps: int = 500
    schedule: Literal["cosine", "steps"] = "steps"
    rate_factors: tuple[tuple[str, float], ...] = ()
    average_decay: float | None = None
    is_half: bool = False

    def count_steps(self, num_images: int, images_a_step: int) -> int:
        """Steps of the schedule for this many images."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, self.epochs * num_images // images_a_step)


COCO_RECIPE = Clip2SamRecipe()
LVIS_RECIPE = Clip2SamRecipe(
    augmentation=AugmentationOptions(scale_range=(0.1, 2.0), max_objects=PUBLISHED_PROMPTS),
    classes="lvis-norare",
)
# Small data and a small model: stronger changes of the picture, and all of the neck is trained.
TINY_RECIPE = Clip2SamRecipe(
    losses=Clip2SamOptions(
        trained=("neck", "fine_neck", "pe", "mask_decoder"),
        num_points=1024,
        near_share=2 / 3,
        map_noise=MapNoise(),
    ),
    augmentation=AugmentationOptions(
        scale_range=(0.6, 1.9),
        is_log_uniform=True,
        min_visible_share=0.2,
        has_camera_faults=True,
        is_exact=False,
    ),
    prompts=MixedPrompts(),
    regions=RegionOptions(),
    classes="all",
    images_a_step=3,
    images_per_batch=3,
    max_steps=30_000,
    learning_rate=1.2e-3,
    weight_decay=0.02,
    gradient_clip=1.0,
    warmup_steps=100,
    schedule="cosine",
    average_decay=0.998,
    is_half=True,
)
RECIPES: dict[RecipeName, Clip2SamRecipe] = {
    "coco": COCO_RECIPE,
    "lvis": LVIS_RECIPE,
    "tiny": TINY_RECIPE,
}
