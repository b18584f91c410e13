"""The published schedules, number by number (spec section 7.2)."""

from dataclasses import replace
from pathlib import Path

import pytest

from ovsam_cli.training.clip2sam_options import Clip2SamRunOptions, ModelSource
from ovsam_cli.training.clip2sam_run import build_loop_options
from ovsam_cli.training.distributed import Ranks
from ovsam_cli.training.prompt_sampling import PublishedPrompts
from ovsam_cli.training.recipes import COCO_RECIPE, LVIS_RECIPE, RECIPES, TINY_RECIPE


def test_the_published_recipes() -> None:
    for recipe, scale in ((COCO_RECIPE, (0.9, 2.0)), (LVIS_RECIPE, (0.1, 2.0))):
        assert recipe.augmentation.scale_range == scale and recipe.augmentation.is_exact
        assert (recipe.augmentation.model_size, recipe.augmentation.min_area) == (1024, 32)
        assert recipe.prompts == PublishedPrompts(40) and recipe.regions is None
        assert recipe.losses.trained == ("fpn_neck", "mask_decoder")
        assert (recipe.losses.num_points, recipe.losses.near_share) == (12544, 0.0)
        assert recipe.losses.map_noise is None and recipe.average_decay is None
    assert (COCO_RECIPE.classes, LVIS_RECIPE.classes) == ("coco48", "lvis-norare")


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 8), (8, 1), (3, 3), (16, 1)])
def test_sixteen_images_a_step_on_any_number_of_processes(world_size: int, accumulate: int) -> None:
    options = Clip2SamRunOptions(Path("out"), (), ModelSource("rn50x16"), recipe=COCO_RECIPE)
    loop = build_loop_options(options, 107_761, Ranks(0, world_size, 0))
    assert loop.accumulate == accumulate
    images_a_step = accumulate * 2 * world_size
    assert loop.max_steps == 12 * 107_761 // images_a_step
    assert (loop.learning_rate, loop.weight_decay, loop.gradient_clip) == (1e-4, 0.05, 0.01)
    assert (loop.schedule, loop.milestones, loop.gamma) == ("steps", (8 / 12, 11 / 12), 0.1)
    assert loop.warmup_steps == 500


def test_steps_before_epochs() -> None:
    assert TINY_RECIPE.count_steps(10**6, 3) == TINY_RECIPE.max_steps
    assert replace(COCO_RECIPE, epochs=1).count_steps(3, 16) == 1
    assert RECIPES["tiny"] is TINY_RECIPE
