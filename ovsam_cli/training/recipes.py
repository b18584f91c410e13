"""How CLIP2SAM is trained: the published schedules, and the one of the bundled model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.model.run_checkpoints import BoxCalibration
from ovsam_cli.training.augmentation import AugmentationOptions
from ovsam_cli.training.clip2sam import Clip2SamOptions, MapNoise
from ovsam_cli.training.prompt_sampling import MixedPrompts, PromptRule, PublishedPrompts
from ovsam_cli.training.region_sampling import RegionOptions
from ovsam_cli.training.schedule import Undecayed

RecipeName = Literal["coco", "lvis", "tiny", "tiny-names"]
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
        learning_rate, weight_decay, undecayed, gradient_clip, warmup_steps, schedule: of the loop.
        rate_factors: learning rate factors of trained parts, by their paths.
        average_decay: of the weights' moving average; None for none.
        is_half: written weights are rounded to half precision.
        boxes: trust in boxes that the written weights of `tiny` get, or None.
        described_batches: train the head of `tiny` alone, on the regions of so many micro-batches,
            described once; None trains as `losses` say, every batch anew.
        start_share: of the head's weights before that in those written, which keeps what they
            knew of other pictures (WiSE-FT; Wortsman et al. 2022).
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
    undecayed: Undecayed = "norms"
    gradient_clip: float | None = 0.01
    warmup_steps: int = 500
    schedule: Literal["cosine", "steps"] = "steps"
    rate_factors: tuple[tuple[str, float], ...] = ()
    average_decay: float | None = None
    is_half: bool = False
    boxes: BoxCalibration | None = None
    described_batches: int | None = None
    start_share: float = 0.0

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
        num_points=384,
        near_share=2 / 3,
        map_noise=MapNoise(),
        single_share=0.3,
        other_share=0.03,
    ),
    augmentation=AugmentationOptions(
        scale_range=(0.6, 1.9),
        is_log_uniform=True,
        min_visible_share=0.2,
        has_camera_faults=True,
        is_exact=False,
    ),
    prompts=MixedPrompts(num_prompts=16),
    regions=RegionOptions(),
    classes="all",
    images_a_step=2,
    images_per_batch=1,
    max_steps=2400,
    learning_rate=1.2e-3,
    weight_decay=0.02,
    undecayed="vectors",
    gradient_clip=10.0,
    warmup_steps=80,
    schedule="cosine",
    average_decay=0.997,
    is_half=True,
    boxes=BoxCalibration(gain=0.5, outside=10.0),
)
# Then its head alone, on many more passes: masks are what costs.
TINY_NAMES_RECIPE = replace(
    TINY_RECIPE,
    prompts=MixedPrompts(num_prompts=1),
    boxes=None,
    described_batches=2400,
    start_share=0.5,
    images_a_step=1,
    max_steps=4000,
    learning_rate=1e-3,
    weight_decay=0.05,
    gradient_clip=None,
    warmup_steps=100,
    average_decay=0.99,
)
RECIPES: dict[RecipeName, Clip2SamRecipe] = {
    "coco": COCO_RECIPE,
    "lvis": LVIS_RECIPE,
    "tiny": TINY_RECIPE,
    "tiny-names": TINY_NAMES_RECIPE,
}


def change_recipe(
    recipe: Clip2SamRecipe,
    *,
    classes: ClassSplit | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    images_per_batch: int | None = None,
    learning_rate: float | None = None,
    warmup_steps: int | None = None,
    described_batches: int | None = None,
) -> Clip2SamRecipe:
    """The recipe with what is given in place of its own; epochs replace its number of steps.

    Raises:
        InputError: described views for a recipe that describes none.
    """
    if described_batches is not None and recipe.described_batches is None:
        raise InputError("--views is for recipes that describe views first, as tiny-names does")
    return replace(
        recipe,
        classes=classes or recipe.classes,
        epochs=epochs or recipe.epochs,
        max_steps=max_steps or (None if epochs else recipe.max_steps),
        images_per_batch=images_per_batch or recipe.images_per_batch,
        learning_rate=learning_rate or recipe.learning_rate,
        described_batches=described_batches or recipe.described_batches,
        warmup_steps=recipe.warmup_steps if warmup_steps is None else warmup_steps,
    )
