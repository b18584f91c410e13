"""Labelling in this process, on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ovsam_cli.labelling.engine import LabelJob
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.pipeline import label_batches
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.planner import PreparedImage, ReadOptions, is_compiling_worthwhile
from ovsam_cli.labelling.run_facts import RunFacts, build_facts
from ovsam_cli.labelling.run_files import PreviewWriter
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.prompts import PromptSource
from ovsam_cli.structures import ImageRecord, ImageResult, Prompts


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """A labeller and what it says of its run."""

    labeller: Labeller
    facts: RunFacts

    @classmethod
    def open(cls, plan: RunPlan, *, on_message: Callable[[str], None]) -> LocalEngine:
        """Load the weights and embed the names; raises what `build_labeller` raises."""
        loaded, labeller = build_labeller(plan, on_message=on_message)
        return cls(labeller, build_facts(plan, loaded, labeller))

    def label(self, job: LabelJob) -> None:
        """Label what is left of a run; see `LabelEngine`."""
        previews = PreviewWriter(job.plan, self.facts.categories)

        def write(result: ImageResult) -> None:
            if result.record.file_name in job.left:
                job.journal.append(result)
                job.on_result(result)

        def draw(image: PreparedImage, result: ImageResult) -> None:
            if image.rgb is not None and result.record.file_name in job.left:
                previews.write(image.rgb, result)

        prompts = job.plan.prompts
        label_batches(
            self.labeller,
            job.batches,
            build_read_options(
                self.labeller,
                None if prompts is None else partial(find_prompts, prompts),
                previews,
                num_images=len(job.left),
            ),
            finish=draw,
            write=write,
            on_message=job.on_message,
            should_stop=job.should_stop,
        )


def build_read_options(
    labeller: Labeller,
    find: Callable[[ImageRecord, tuple[int, int]], tuple[Prompts, tuple[str, ...]]] | None,
    previews: PreviewWriter,
    *,
    num_images: int,
) -> ReadOptions:
    """How a run's images are read.

    Args:
        labeller: says what the model wants.
        find: the prompts of an image; None in grid mode.
        previews: wants some images at their own size.
        num_images: to be read by this process.
    """
    options = labeller.options
    has_crops = options.grid is not None and options.grid.crop_layers > 0
    return ReadOptions(
        pixel_format=labeller.pixel_format,
        exif=options.exif,
        find_prompts=find,
        keeps_rgb=lambda record: has_crops or previews.is_wanted(record),
        compiled=is_compiling_worthwhile(num_images),
    )


def find_prompts(
    source: PromptSource, record: ImageRecord, original_hw: tuple[int, int]
) -> tuple[Prompts, tuple[str, ...]]:
    """The prompts of one image, and a notice for each that cannot be used."""
    prompts, problems = source.for_image(record, original_hw)
    return prompts, tuple(
        p.message if p.prompt_id is None else f"prompt {p.prompt_id}: {p.message}" for p in problems
    )
