"""What a user asks of `ovsam eval prompted`, checked before any weight is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsam_cli.errors import InputError
from ovsam_cli.evaluation.clicks import ClickRule
from ovsam_cli.evaluation.coco_entries import open_coco, read_tables
from ovsam_cli.evaluation.dataset_places import DatasetPlace, check_images, find_dataset
from ovsam_cli.evaluation.datasets import EXAMPLE, WHAT
from ovsam_cli.evaluation.instance_store import InstanceSource, InstanceStore, Sa1bStore
from ovsam_cli.evaluation.prompting import PromptRule, parse_prompt_rule
from ovsam_cli.evaluation.splits import NEITHER, NameSplit, match_names
from ovsam_cli.vocabulary import Category, Naming, Vocabulary, clean_names, read_vocabulary

Baseline = Literal["none", "box-fill", "ellipse", "image-crop", "feature-crop"]
Protocol = Literal["own", "paper"]
SHAPES = {"box-fill": "box", "ellipse": "ellipse"}  # need no model


@dataclass(frozen=True, slots=True)
class PromptedRequest:
    """Everything `ovsam eval prompted` was asked for.

    Attributes:
        dataset, images: see `dataset_places.find_dataset`.
        out: folder for metrics.json, report.html and the rows.
        prompt, click, seed: see `prompting.parse_prompt_rule`.
        model, devices, dtype: as of `ovsam label`.
        vocabulary: the names that compete; None takes the data set's own.
        text_embeddings, base_names: as of `ovsam label`.
        fusion: which recognition branches count.
        split: base and novel names, see `splits.NameSplit.find`.
        protocol: `paper` sets every switch as the published evaluation has it.
        baseline: something simpler in the model's place.
        max_images: the first ones that have objects; None takes all.
        batch_size: images an encoder run; None is 1 on the CPU and 8 on CUDA.
        restart, overwrite: as of `ovsam label`.
    """

    dataset: str
    images: Path | None
    out: Path
    prompt: str = "box"
    click: ClickRule | None = None
    seed: int = 0
    model: str = "rn50x16"
    devices: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    vocabulary: str | None = None
    text_embeddings: Path | None = None
    base_names: str | None = None
    fusion: Literal["auto", "head", "clip"] = "auto"
    split: str = "auto"
    protocol: Protocol = "own"
    baseline: Baseline = "none"
    max_images: int | None = None
    batch_size: int | None = None
    restart: bool = False
    overwrite: bool = False

    @property
    def needs_model(self) -> bool:
        """Whether weights are loaded and images read."""
        return self.baseline not in SHAPES


@dataclass(frozen=True, slots=True)
class PromptedPlan:
    """A request whose parts were found and read.

    Attributes:
        request: what was asked for.
        source: the annotated images.
        rule: how objects are prompted.
        vocabulary: the names that compete; None for masks alone.
        rows: row of the vocabulary of each category id of the data set, or -1.
        split: base and novel, frequencies.
    """

    request: PromptedRequest
    source: InstanceSource
    rule: PromptRule
    vocabulary: Vocabulary | None
    rows: dict[int, int]
    split: NameSplit


def plan_prompted(request: PromptedRequest) -> PromptedPlan:
    """Find the data set and read what decides the figures.

    Raises:
        InputError: an option, a file or an image is missing or does not fit.
        VocabularyError: a vocabulary cannot be used.
    """
    is_paper = request.protocol == "paper"
    rule = parse_prompt_rule(
        request.prompt,
        click=request.click,
        default_click="reference" if is_paper else "exact",
        box="annotated" if is_paper else "tight",
        seed=request.seed,
    )
    place = find_dataset(request.dataset, request.images)
    if place.is_sa1b:
        source: InstanceSource = Sa1bStore(place.annotations, max_images=request.max_images)
        split = NameSplit(None, {}, {})
        _refuse_names(request)
    else:
        split = _read_split(request, place)
        keep = None
        if is_paper:
            _check_paper(request, split, rule)
            keep = frozenset(number for number, kind in split.kinds.items() if kind != NEITHER)
        source = InstanceStore(
            place.annotations, place.images, keep=keep, max_images=request.max_images
        )
    if request.needs_model:
        check_images(source.records, str(place.annotations))
    vocabulary = _choose_vocabulary(request, source, split) if source.category_names else None
    rows = match_names(source.category_names, vocabulary) if vocabulary else {}
    if vocabulary and max(rows.values()) < 0:
        raise InputError(
            f"--vocab {request.vocabulary}: none of its names is one of {place.annotations} "
            f"({', '.join([*source.category_names.values()][:3])}, ...); give the names of the data"
        )
    return PromptedPlan(request, source, rule, vocabulary, rows, split)


def _read_split(request: PromptedRequest, place: DatasetPlace) -> NameSplit:
    with open_coco(place.annotations, WHAT, EXAMPLE) as stream:
        tables = read_tables(stream)
    frequencies = {one.id: one.frequency for one in tables.categories}
    return NameSplit.find(request.split, tables.category_names, frequencies)


def _check_paper(request: PromptedRequest, split: NameSplit, rule: PromptRule) -> None:
    if not any(split.kinds.values()):
        raise InputError(
            "--protocol paper: needs base and novel names, as COCO and LVIS have in the paper; "
            "for other data give a vocabulary with them by --split"
        )
    if request.fusion != "auto":
        raise InputError(
            f"--protocol paper: joins both branches; leave out --fusion {request.fusion}"
        )
    if rule.kind == "points":
        raise InputError(f"--protocol paper: prompts by box or point, not by {request.prompt}")


def _refuse_names(request: PromptedRequest) -> None:
    if request.vocabulary or request.protocol == "paper" or request.baseline.endswith("crop"):
        raise InputError(
            f"{request.dataset}: SA-1B has masks without names; leave out --vocab, "
            "--protocol paper and the baselines that name"
        )


def _choose_vocabulary(
    request: PromptedRequest, source: InstanceSource, split: NameSplit
) -> Vocabulary:
    """The names asked for; else the bundled ones of the data set, or its own."""
    is_published = request.model not in ("tiny",) and request.protocol == "paper"
    naming: Naming = "reference" if is_published else "clean"
    if request.vocabulary is not None:
        return read_vocabulary(request.vocabulary, naming)
    if split.name in ("coco", "lvis") and request.split == "auto":
        return read_vocabulary(split.name, naming)
    return Vocabulary(
        source.name,
        tuple(
            Category(number, name, clean_names(name))
            for number, name in source.category_names.items()
        ),
        source=source.name,
    )
