"""Where a run's batches are labelled: in this process, or by workers that it starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from ovsam_cli.labelling.journal import Journal
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.run_facts import RunFacts
from ovsam_cli.structures import ImageRecord, ImageResult


@dataclass(frozen=True, slots=True)
class LabelJob:
    """What is left of a run.

    Attributes:
        plan: of the whole run.
        batches: that miss an image, whole: what is missing was computed together with the rest.
        left: file names of the images that are missing.
        journal: takes a row of each image of `left`, and of no other.
        on_result: called with each image of `left` when its row is in the journal, in one thread
            at a time; objects are left out where the row was written by another process.
        on_message: called with what a person should know.
        should_stop: asked before each batch; once it says so, none is begun any more, and those
            in hand are finished.
    """

    plan: RunPlan
    batches: Iterable[tuple[ImageRecord, ...]]
    left: Collection[str]
    journal: Journal
    on_result: Callable[[ImageResult], None]
    on_message: Callable[[str], None]
    should_stop: Callable[[], bool]


class LabelEngine(Protocol):
    """Holds the model, or the workers that have it."""

    @property
    def facts(self) -> RunFacts:
        """What the model says of the run."""

    def label(self, job: LabelJob) -> None:
        """Label what is left of a run, or as much of it as `should_stop` allows.

        Raises:
            OutputError: the journal cannot be written.
            DeviceError: no device is left to go on with.
        """
