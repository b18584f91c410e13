"""`ovsam eval calibrate`: fit the temperature of a model's scores, and keep it with its weights."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ovsam_cli import __version__
from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.evaluation.answering import Asker, iter_answers
from ovsam_cli.evaluation.logit_rows import LogitRow
from ovsam_cli.evaluation.open_images import OpenImage, Target
from ovsam_cli.evaluation.prompted import (
    ModelFacts,
    OnImages,
    OnMessage,
    build_fingerprint,
    build_rules,
    describe_model,
    load_labeller,
)
from ovsam_cli.evaluation.prompted_options import PromptedPlan
from ovsam_cli.evaluation.row_journal import RowJournal, fill_journal, open_journal
from ovsam_cli.evaluation.temperature import NUM_FOLDS, LogitFile, TemperatureFit, fit_temperature
from ovsam_cli.labelling.fingerprint import Fingerprint
from ovsam_cli.labelling.score_calibration import ScoreCalibration, write_calibration
from ovsam_cli.structures import FloatArray, IntArray

FEWEST = 20  # objects that a number can be fitted to


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A fitted temperature.

    Attributes:
        plan: what was asked for.
        model: whose scores.
        fit: the temperature, and what it does.
        stored: where it was written; None: nowhere.
        num_images: that were asked.
        failures: (file name, message) of the images that failed.
    """

    plan: PromptedPlan
    model: ModelFacts
    fit: TemperatureFit
    stored: Path | None
    num_images: int
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model that is asked, and its files."""

    asker: Asker
    model: ModelFacts
    paths: tuple[Path, ...]


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
        InputError: too few objects have a name that competes; or as `evaluate_prompted`.
        OutputError: the folder, or the file beside the weights, cannot be written.
        KeyboardInterrupt: `should_stop` said so; the rows so far are kept.
    """
    records = plan.source.records
    opened, journal = open_journal(
        plan.request, partial(_open, plan, on_message), LogitRow.from_json
    )
    with journal:
        answer = partial(_iter_rows, plan, opened.asker)
        fill_journal(journal, records, answer, on_images=on_images, should_stop=should_stop)
        logits, failures = _read_logits(plan, opened.asker, journal)
    if len(logits) < FEWEST:
        raise InputError(
            f"{plan.source.name}: {len(logits)} objects have a name that competes; give at least "
            f"{FEWEST}, better thousands"
        )
    fit = fit_temperature(logits)
    stored = write_calibration(opened.paths, _to_stored(plan, opened, fit)) if store else None
    num_images = len(records) - len(failures)
    return CalibrationReport(plan, opened.model, fit, stored, num_images, failures)


def _open(plan: PromptedPlan, on_message: OnMessage) -> tuple[_Opened, Fingerprint]:
    loaded, labeller = load_labeller(plan, on_message)
    sizes = labeller.work_sizes(on_message)
    asker = Asker(labeller, plan.rule, build_rules(plan, labeller), sizes)
    model = describe_model(loaded, labeller)
    fingerprint = build_fingerprint(plan, "eval calibrate", asker, model, {})
    return _Opened(asker, model, tuple(loaded.paths)), fingerprint


def _iter_rows(plan: PromptedPlan, asker: Asker, left: list[int]) -> Generator[list[LogitRow]]:
    for batch in iter_answers(plan.source, left, asker, partial(_ask, asker)):
        yield [
            LogitRow.failed(record, found.reason, str(found))
            if isinstance(found, ImageError)
            else LogitRow.of(record, *found)
            for record, found in batch
        ]


def _ask(asker: Asker, batch: Sequence[OpenImage]) -> list[tuple[FloatArray, IntArray]]:
    """Of each image: (B, K + 1) logits of objects whose name competes, and their names' rows."""
    assert asker.names is not None  # checked by the command
    rows = asker.names.row_of_category
    targets = [
        Target(number, one)
        for number, opened in enumerate(batch)
        for one in opened.instances
        if rows.get(one.category_id, -1) >= 0
    ]
    nothing: FloatArray = np.empty((0, len(asker.labeller.vocabulary) + 1), np.float32)
    with torch.inference_mode():
        found = [asked.class_logits[0].numpy() for asked in asker.ask(batch, targets)]
    logits = np.concatenate([nothing, *found])
    images = np.asarray([one.image for one in targets], np.int64)
    true_rows = np.asarray([rows[one.instance.category_id] for one in targets], np.int64)
    return [(logits[images == number], true_rows[images == number]) for number in range(len(batch))]


def _read_logits(
    plan: PromptedPlan, asker: Asker, journal: RowJournal[LogitRow]
) -> tuple[LogitFile, tuple[tuple[str, str], ...]]:
    """All logits in a file that is quick to read again, and the images that failed."""
    logits = LogitFile(len(asker.labeller.vocabulary) + 1)
    failures = []
    for number, row in enumerate(journal.iter_rows(plan.source.records)):
        if row.reason:
            failures.append((row.record.file_name, row.message))
        else:
            logits.append(row.logits, row.true_rows, number % NUM_FOLDS)
    return logits, tuple(failures)


def _to_stored(plan: PromptedPlan, opened: _Opened, fit: TemperatureFit) -> ScoreCalibration:
    fusion = plan.request.fusion
    return ScoreCalibration(
        weights_sha256=opened.model.sha256,
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
