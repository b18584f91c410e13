"""`ovsam eval prompted`: every object prompted by its own ground truth, masks and names counted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ovsam_cli import __version__
from ovsam_cli.errors import ImageError
from ovsam_cli.evaluation.answering import Asker, draw_rows, iter_answers
from ovsam_cli.evaluation.instance_rows import ImageRow
from ovsam_cli.evaluation.naming_rules import NamingRules, build_own_rules, build_paper_rules
from ovsam_cli.evaluation.prompted_options import SHAPES, PromptedPlan
from ovsam_cli.evaluation.row_journal import fill_journal, open_journal
from ovsam_cli.evaluation.tally import Figures, TallyContext, tally_rows
from ovsam_cli.labelling.device import describe_device
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.labeller import build_labeller
from ovsam_cli.labelling.options import LabelOptions, LabelRequest
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.model.clip2sam import RegionHead
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.vocabulary import Vocabulary, read_vocabulary

OnMessage = Callable[[str], None]
OnImages = Callable[[int, int], None]
# Cells a side of the head's regions in the published test settings (spec section 5).
PAPER_ROI_SIZES = {"coco": 12, "lvis": 7}
NO_NAMES = "object,"  # where masks alone are wanted, the model still needs a name


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which weights answered."""

    name: str
    sha256: str
    files: tuple[str, ...]
    notice: str
    device: str
    dtype: str
    head_roi_size: int | None


@dataclass(frozen=True, slots=True)
class PromptedReport:
    """An evaluation with what it was made of.

    Attributes:
        plan: what was asked for.
        model: None for a baseline that needs none.
        rank_keys: the accuracies.
        figures: the numbers.
        temperature: by which class logits were divided for scores.
    """

    plan: PromptedPlan
    model: ModelFacts | None
    rank_keys: tuple[str, ...]
    figures: Figures
    temperature: float


@dataclass(frozen=True, slots=True)
class _Answerer:
    """What answers images: a model with its names, or a shape."""

    model: ModelFacts | None
    asker: Asker | None

    @property
    def names(self) -> NamingRules | None:
        return None if self.asker is None else self.asker.names


def evaluate_prompted(
    plan: PromptedPlan,
    *,
    on_message: OnMessage = lambda text: None,
    on_images: OnImages = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> PromptedReport:
    """Answer all images that have no row yet, then add up the rows of all.

    Args:
        plan: from `prompted_options.plan_prompted`.
        on_message: called with notices for a person.
        on_images: called with the number of images done and of all.
        should_stop: asked after each image.

    Raises:
        InputError: the output folder holds something else, or rows of other settings.
        OutputError: it cannot be written, or is in use.
        CheckpointError: the weights are missing or broken.
        KeyboardInterrupt: `should_stop` said so; the rows so far are kept.
    """
    records = plan.source.records
    answerer, journal = open_journal(
        plan.request, partial(_open, plan, on_message), ImageRow.from_json
    )
    with journal:
        answer = partial(_iter_rows, plan, answerer)
        fill_journal(journal, records, answer, on_images=on_images, should_stop=should_stop)
        context = build_context(plan, answerer.names)
        return PromptedReport(
            plan=plan,
            model=answerer.model,
            rank_keys=context.rank_keys,
            figures=tally_rows(journal.iter_rows(records), context),
            temperature=1.0 if answerer.asker is None else answerer.asker.temperature,
        )


def _open(plan: PromptedPlan, on_message: OnMessage) -> tuple[_Answerer, Fingerprint]:
    built = _build_answerer(plan, on_message)
    more = {} if built.asker is None else {"temperature": built.asker.temperature}
    return built, build_fingerprint(plan, "eval prompted", built.asker, built.model, more)


def build_context(plan: PromptedPlan, names: NamingRules | None) -> TallyContext:
    """What the rows of a plan mean."""
    return TallyContext(
        category_names=plan.source.category_names,
        vocabulary_names=() if plan.vocabulary is None else plan.vocabulary.names,
        rank_keys=() if names is None else names.keys,
        split=plan.split,
    )


def _iter_rows(
    plan: PromptedPlan, answerer: _Answerer, left: list[int]
) -> Generator[list[ImageRow]]:
    if answerer.asker is not None:
        for batch in iter_answers(plan.source, left, answerer.asker, answerer.asker.answer):
            yield [
                ImageRow(record, reason=found.reason, message=str(found))
                if isinstance(found, ImageError)
                else ImageRow(record, found)
                for record, found in batch
            ]
        return
    shape: Literal["box", "ellipse"] = (
        "box" if SHAPES[plan.request.baseline] == "box" else "ellipse"
    )
    for row in left:
        yield [ImageRow(plan.source.records[row], draw_rows(plan.source.load(row), shape))]


def _build_answerer(plan: PromptedPlan, on_message: OnMessage) -> _Answerer:
    if not plan.request.needs_model:
        return _Answerer(None, None)
    loaded, labeller = load_labeller(plan, on_message)
    names: NamingRules | None = None
    if plan.vocabulary is not None:
        names = build_rules(plan, labeller)
    if plan.request.protocol == "paper":
        set_roi_size(labeller, PAPER_ROI_SIZES.get(plan.split.name or ""))
    sizes = labeller.work_sizes(on_message)
    asker = Asker(labeller, plan.rule, names, sizes, labeller.temperature)
    return _Answerer(describe_model(loaded, labeller), asker)


def build_rules(plan: PromptedPlan, labeller: Labeller) -> NamingRules:
    """The accuracies of a plan."""
    baseline = plan.request.baseline
    if plan.request.protocol == "paper" and baseline == "none":
        return build_paper_rules(labeller, plan.rows, plan.split)
    if baseline == "feature-crop":
        fusion = replace(labeller.fusion, mode="clip")
        labeller = replace(labeller, fusion=fusion)
    boxes: Literal["crop", "own"] = "crop" if baseline == "image-crop" else "own"
    return build_own_rules(labeller, plan.rows, plan.split, clip_boxes=boxes)


def load_labeller(plan: PromptedPlan, on_message: OnMessage) -> tuple[LoadedModel, Labeller]:
    """The model of a plan, ready to label with its names, as `ovsam label` makes it."""
    request = plan.request
    vocabulary: Vocabulary = plan.vocabulary or read_vocabulary(NO_NAMES)
    base = read_vocabulary(request.base_names) if request.base_names else None
    asked = LabelRequest(
        images=(),
        vocabulary=vocabulary.name,
        out=request.out,
        model=request.model,
        devices=request.devices,
        text_embeddings=request.text_embeddings,
        options=LabelOptions(
            batch_size=request.batch_size,
            dtype=request.dtype,
            compile="never",
            fusion=request.fusion,
        ),
    )
    run = RunPlan(
        request=asked,
        records=(),
        vocabulary=vocabulary,
        base_vocabulary=base,
        prompts=None,
        unmatched=(),
    )
    return build_labeller(run, on_message=on_message)


def set_roi_size(labeller: Labeller, size: int | None) -> None:
    """Pool the head's regions into other cells than the weights' config says, where it can."""
    head = labeller.model.mask_decoder.roi_conv
    if size is not None and isinstance(head, RegionHead):
        head.roi_size = size


def describe_model(loaded: LoadedModel, labeller: Labeller) -> ModelFacts:
    """Which weights, where and in which format."""
    head = labeller.model.mask_decoder.roi_conv
    return ModelFacts(
        name=loaded.name,
        sha256=loaded.weights_sha256,
        files=tuple(path.name for path in loaded.paths),
        notice=loaded.license_notice,
        device=describe_device(labeller.device),
        dtype=str(labeller.dtype).removeprefix("torch."),
        head_roi_size=head.roi_size if isinstance(head, RegionHead) else None,
    )


def build_fingerprint(
    plan: PromptedPlan,
    command: str,
    asker: Asker | None,
    model: ModelFacts | None,
    more: Mapping[str, JsonValue],
) -> Fingerprint:
    """What decides the rows of an evaluation.

    Args:
        plan: of the evaluation.
        command: whose rows they are.
        asker, model: None for a baseline that needs none.
        more: further options.
    """
    request = plan.request
    options: dict[str, JsonValue] = {
        "command": command,
        "prompt": plan.rule.describe(),
        "protocol": request.protocol,
        "baseline": request.baseline,
        "fusion": request.fusion,
        "split": plan.split.name,
        "max_images": request.max_images,
        **more,
    }
    if asker is not None:
        options |= {
            "dtype": str(asker.labeller.dtype).removeprefix("torch."),
            "text_embeddings": asker.labeller.text_hash,
            "base_names": request.base_names,
            "accuracies": [] if asker.names is None else [*asker.names.keys],
        }
    return Fingerprint(
        weights_sha256="" if model is None else model.sha256,
        vocabulary_sha256="" if plan.vocabulary is None else plan.vocabulary.sha256(),
        prompts_sha256=plan.source.sha256,
        tool_version=__version__,
        options=options,
    )
