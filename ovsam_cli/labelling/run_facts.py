"""What a loaded model says of its run, without the model: small, sent by workers; no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ovsam_cli import __version__
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.plan import RunPlan
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions
from ovsam_cli.outputs.json_values import JsonValue

if TYPE_CHECKING:
    from ovsam_cli.labelling.stages import Labeller
    from ovsam_cli.model.checkpoint import LoadedModel

# Options that change how fast results come, or which files show them, but not the objects found.
NOT_IN_FINGERPRINT = {
    "batch_size",
    "prompts_per_batch",
    "compile",
    "num_previews",
    "report",
    "masks",
}


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is written about a run besides its plan.

    Attributes:
        fingerprint: the settings that decide its results, but for prompts, images and shard.
        categories: of its COCO file.
        weights: name, checksum, sources, notice and `predicts_iou`, for run.json.
        options: with defaults that depend on the mode or the model filled in.
        device, dtype: where and in which format the network computes, in words.
        batch_size: images a step.
    """

    fingerprint: Fingerprint
    categories: tuple[CocoCategory, ...]
    weights: dict[str, JsonValue]
    options: dict[str, JsonValue]
    device: str
    dtype: str
    batch_size: int

    @property
    def weight_paths(self) -> list[str]:
        """The model's files."""
        sources = self.weights["sources"]
        return [str(path) for path in sources] if isinstance(sources, list) else []


def build_facts(plan: RunPlan, loaded: LoadedModel, labeller: Labeller) -> RunFacts:
    """Ask a model and its labeller for what others need to know of them."""
    from ovsam_cli.labelling.device import describe_device  # torch is there by now

    weights: dict[str, JsonValue] = {
        "name": loaded.name,
        "sha256": loaded.weights_sha256,
        "sources": [str(path) for path in loaded.paths],
        "notice": loaded.license_notice,
        "predicts_iou": loaded.config.iou_head,
    }
    return RunFacts(
        fingerprint=build_fingerprint(plan, loaded, labeller),
        categories=tuple(build_categories(labeller)),
        weights=weights,
        options=_resolved_options(labeller),
        device=describe_device(labeller.device),
        dtype=_dtype_name(labeller),
        batch_size=labeller.work_sizes().images,
    )


def build_categories(labeller: Labeller) -> list[CocoCategory]:
    """The vocabulary's categories, and the unknown one behind them."""
    categories = [
        CocoCategory(category.id, category.name, frequency=category.frequency)
        for category in labeller.vocabulary.categories
    ]
    unknown_id, unknown_name = labeller.unknown_category_id, labeller.options.unknown_name
    if unknown_id is not None and unknown_name is not None:
        categories.append(CocoCategory(unknown_id, unknown_name))
    return categories


def build_coco_options(plan: RunPlan, facts: RunFacts) -> CocoOptions:
    """What the COCO file of a run says besides the objects."""
    options = plan.request.options
    return CocoOptions(
        masks=options.masks,
        with_prompt=options.grid is None,
        with_topk=options.top_k > 0,
        version=__version__,
        description="Labelled with ovsam (Open-Vocabulary SAM)",
        weights_notice=f"{facts.weights['name']}: {facts.weights['notice']}",
    )


def build_fingerprint(plan: RunPlan, loaded: LoadedModel, labeller: Labeller) -> Fingerprint:
    """The settings that decide the results of a run."""
    options = {
        name: value
        for name, value in _resolved_options(labeller).items()
        if name not in NOT_IN_FINGERPRINT
    }
    # One setting a line, so that a refusal can show what differs.
    del options["grid"]
    if labeller.options.grid is not None:
        grid = asdict(labeller.options.grid)
        options |= {f"grid.{name}": value for name, value in grid.items()}
    if options["min_predicted_iou"] is None:
        # Runs without such a filter keep the settings they had before there was one.
        del options["min_predicted_iou"]
    if options["temperature"] == 1:  # likewise runs of weights that were not calibrated
        del options["temperature"]
    options["dtype"] = _dtype_name(labeller)
    options["device"] = labeller.device.type
    options["text_embeddings"] = labeller.text_hash
    options["base_names"] = plan.base_vocabulary.sha256() if plan.base_vocabulary else None
    return Fingerprint(
        weights_sha256=loaded.weights_sha256,
        vocabulary_sha256=plan.vocabulary.sha256(),
        prompts_sha256=plan.prompts.sha256 if plan.prompts else "",
        tool_version=__version__,
        options=options,
    )


def _resolved_options(labeller: Labeller) -> dict[str, JsonValue]:
    """The run's options, with defaults that depend on mode, model or machine filled in."""
    from ovsam_cli.labelling.device import count_threads  # torch is there by now

    return asdict(labeller.options) | {
        # On a CPU sums are cut into as many pieces as there are threads, and rounded so.
        "threads": count_threads() if labeller.device.type == "cpu" else None,
        "min_stability": labeller.stability_cut,
        "temperature": labeller.temperature,
        "min_predicted_iou": labeller.predicted_iou_cut,
    }


def _dtype_name(labeller: Labeller) -> str:
    return str(labeller.dtype).removeprefix("torch.")
