"""`ovsam eval calibrate`: fit the temperature of a model's scores, and keep it with its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ovsam_cli import __version__
from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.evaluation.answering import PROMPTS_PER_BATCH, Asker, OpenImage, open_for
from ovsam_cli.evaluation.prompted import OnImages, OnMessage, build_rules, load_labeller
from ovsam_cli.evaluation.prompted_options import PromptedPlan
from ovsam_cli.evaluation.temperature import NUM_FOLDS, LogitFile, TemperatureFit, fit_temperature
from ovsam_cli.labelling.score_calibration import ScoreCalibration, write_calibration
from ovsam_cli.labelling.stages import encode
from ovsam_cli.model.checkpoint import LoadedModel
from ovsam_cli.structures import FloatArray, IntArray

FEWEST = 20  # objects that a number can be fitted to


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A fitted temperature, and where it was written (None: nowhere)."""

    plan: PromptedPlan
    loaded: LoadedModel
    fit: TemperatureFit
    stored: Path | None
    num_images: int


def calibrate_scores(
    plan: PromptedPlan,
    *,
    store: bool,
    on_message: OnMessage = lambda text: None,
    on_images: OnImages = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CalibrationReport:
    """Ask for the names of all objects, fit, and write the temperature beside the weights.

    Args:
        plan: prompts and names as they will be used.
        store: write it; else only report.
        on_message, on_images, should_stop: as of `prompted.evaluate_prompted`.

    Raises:
        InputError: too few objects have a name that competes.
        OutputError: the file beside the weights cannot be written.
        KeyboardInterrupt: `should_stop` said so; nothing is kept.
    """
    loaded, labeller = load_labeller(plan, on_message)
    asker = Asker(labeller, plan.rule, build_rules(plan, labeller))
    total = len(plan.source.records)
    logits = LogitFile(len(labeller.vocabulary) + 1)
    num_images = 0
    for row in range(total):
        num_images += _collect(asker, plan, row, logits, on_message)
        on_images(row + 1, total)
        if should_stop():
            raise KeyboardInterrupt
    if len(logits) < FEWEST:
        raise InputError(
            f"{plan.source.name}: {len(logits)} objects have a name that competes; give at least "
            f"{FEWEST}, better thousands"
        )
    fit = fit_temperature(logits)
    stored = None
    if store:
        stored = write_calibration(loaded.paths, _to_stored(plan, loaded, fit))
    return CalibrationReport(plan, loaded, fit, stored, num_images)


def _collect(
    asker: Asker, plan: PromptedPlan, row: int, logits: LogitFile, on_message: OnMessage
) -> bool:
    """Add the logits of image `row`; False, and said, where it cannot be read."""
    try:
        opened = open_for(asker.labeller, plan.source.load(row))
    except ImageError as error:
        on_message(str(error))
        return False
    values, true_rows = _ask(asker, opened)
    logits.append(values, true_rows, row % NUM_FOLDS)
    return True


def _ask(asker: Asker, opened: OpenImage) -> tuple[FloatArray, IntArray]:
    """(B, K + 1) class logits of the objects whose name competes, and the rows of their names."""
    assert asker.names is not None  # checked by the command
    found = [np.empty((0, len(asker.labeller.vocabulary) + 1), np.float32)]
    rows: list[int] = []
    instances = [
        one
        for one in opened.image.instances
        if asker.names.row_of_category.get(one.category_id, -1) >= 0
    ]
    with torch.inference_mode():
        pixels = torch.from_numpy(opened.pixels)[None].to(asker.labeller.device)
        features = encode(asker.labeller, pixels, (opened.geometry,))
        for start in range(0, len(instances), PROMPTS_PER_BATCH):
            chunk = instances[start : start + PROMPTS_PER_BATCH]
            _, logits = asker.compute_logits(opened, features, chunk)
            found.append(logits[0].numpy())
            rows += [asker.names.row_of_category[one.category_id] for one in chunk]
    return np.concatenate(found), np.asarray(rows, np.int64)


def _to_stored(plan: PromptedPlan, loaded: LoadedModel, fit: TemperatureFit) -> ScoreCalibration:
    fusion = plan.request.fusion
    return ScoreCalibration(
        weights_sha256=loaded.weights_sha256,
        temperatures={fusion: round(fit.temperature, 4)},
        about={
            fusion: {
                "data": plan.source.name,
                "data_sha256": plan.source.sha256,
                "prompt": plan.rule.describe(),
                "vocabulary": None if plan.vocabulary is None else plan.vocabulary.name,
                "objects": fit.num_instances,
                "expected_error_before": round(fit.before.error, 5),
                "expected_error_after": round(fit.after.error, 5),
                "version": __version__,
            }
        },
    )
