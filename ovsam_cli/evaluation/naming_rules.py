"""Which names compete, joined how, and which box CLIP looks at: the switches of the protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from ovsam_cli.evaluation.splits import NEITHER, NOVEL, NameSplit
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.clip2sam import Fusion
from ovsam_cli.structures import BoolArray, IntArray

ClipBoxes = Literal["own", "truth", "truth-unscaled", "crop"]


@dataclass(frozen=True, slots=True)
class LogitRule:
    """How class logits come about.

    Attributes:
        fusion: which branches count.
        clip_boxes: what CLIP pools: the prompt's box or else the mask's (`own`); the annotated box
            (`truth`); the same left in original pixels, as the published evaluation has it (spec
            section 11, Q1); or a crop of the image that is encoded on its own.
    """

    fusion: Fusion
    clip_boxes: ClipBoxes = "own"


@dataclass(frozen=True, slots=True)
class RankRule:
    """One accuracy of a report.

    Attributes:
        key: what it is called.
        logits: place among the logit rules.
        competes: (K,) bool, the names that may win; objects of other names do not count.
    """

    key: str
    logits: int
    competes: BoolArray


@dataclass(frozen=True, slots=True)
class NamingRules:
    """All accuracies of a run; the first is the one that scores and confusions are of.

    Attributes:
        logit_rules, rank_rules: see there.
        row_of_category: row of the vocabulary of each category id; -1 for a name not in it.
    """

    logit_rules: tuple[LogitRule, ...]
    rank_rules: tuple[RankRule, ...]
    row_of_category: dict[int, int]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the accuracies."""
        return tuple(rule.key for rule in self.rank_rules)


def build_own_rules(
    labeller: Labeller,
    rows: Mapping[int, int],
    split: NameSplit,
    *,
    clip_boxes: ClipBoxes = "own",
) -> NamingRules:
    """As `ovsam label` names: all names compete, and once more those of the split alone.

    Args:
        labeller: with its vocabulary and fusion.
        rows: row of the vocabulary of each category id, or -1.
        split: of the data set's names.
        clip_boxes: what CLIP looks at.
    """
    count = len(labeller.vocabulary)
    everything = np.ones(count, np.bool_)
    ranks = [RankRule(f"{count} names", 0, everything)]
    kinds = _kinds_of_rows(rows, split, count)
    in_split = np.asarray(kinds != NEITHER, np.bool_)
    if 0 < in_split.sum() < count and split.name is not None:
        ranks.append(RankRule(f"{int(in_split.sum())} names", 0, in_split))
    return NamingRules((LogitRule(labeller.fusion, clip_boxes),), tuple(ranks), dict(rows))


def build_paper_rules(labeller: Labeller, rows: Mapping[int, int], split: NameSplit) -> NamingRules:
    """As the paper's evaluation: the true split decides the fusion, CLIP sees the annotated box.

    Both variants of that box come out, and, where names are neither base nor novel (COCO's 15),
    also what all names would make of it.
    """
    count = len(labeller.vocabulary)
    kinds = _kinds_of_rows(rows, split, count)
    oracle = torch.from_numpy(kinds).to(labeller.device)
    fusion = replace(labeller.fusion, mode="auto", category_kind=oracle)
    open_fusion = replace(fusion, category_kind=torch.where(oracle == NEITHER, NOVEL, oracle))
    in_split = np.asarray(kinds != NEITHER, np.bool_)
    boxes: Sequence[tuple[ClipBoxes, str]] = (
        ("truth-unscaled", "boxes as shipped"),
        ("truth", "boxes scaled"),
    )
    logits = [LogitRule(fusion, one) for one, _ in boxes]
    size = int(in_split.sum())
    ranks = [RankRule(f"{size} names, {text}", n, in_split) for n, (_, text) in enumerate(boxes)]
    if size < count:
        everything = np.ones(count, np.bool_)
        for one, text in boxes:
            ranks.append(RankRule(f"{count} names, {text}", len(logits), everything))
            logits.append(LogitRule(open_fusion, one))
    return NamingRules(tuple(logits), tuple(ranks), dict(rows))


def _kinds_of_rows(rows: Mapping[int, int], split: NameSplit, count: int) -> IntArray:
    kinds = np.zeros(count, np.int64)
    for number, row in rows.items():
        if row >= 0:
            kinds[row] = split.kinds.get(number, NEITHER)
    return kinds
