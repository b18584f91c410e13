"""Groups of the optimizer: what decays, and whose rate is a share of the others'."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from ovsam_cli.training.optimizer import build_optimizer, set_rate
from ovsam_cli.training.schedule import LoopOptions, Undecayed


class Stage(nn.Module):
    """A stage whose `upper.last` learns slowest."""

    def __init__(self) -> None:
        super().__init__()
        self.upper = nn.ModuleDict({"first": nn.Linear(2, 3), "last": nn.Linear(3, 2)})
        self.uppermost = nn.Linear(2, 2, bias=False)
        self.norm = nn.LayerNorm(2)
        self.tokens = nn.Embedding(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def make_options(
    folder: Path, factors: dict[str, float], undecayed: Undecayed = "norms"
) -> LoopOptions:
    return LoopOptions(
        folder=folder,
        max_steps=9,
        learning_rate=1.0,
        weight_decay=0.05,
        rate_factors=factors,
        undecayed=undecayed,
    )


@pytest.mark.parametrize(("undecayed", "of_others"), [("norms", 0.05), ("vectors", 0.0)])
def test_groups_by_factor_and_decay(tmp_path: Path, undecayed: Undecayed, of_others: float) -> None:
    """The published recipe spares norms alone (spec 7.1)."""
    stage = Stage()
    options = make_options(tmp_path, {"upper": 0.1, "upper.last": 0.01}, undecayed)
    optimizer = build_optimizer(stage, stage, options)
    names = {id(one): name for name, one in stage.named_parameters()}
    set_rate(optimizer, 2.0)
    found = {
        names[id(one)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for one in group["params"]
    }
    assert found == {
        "upper.first.weight": (0.2, 0.05),
        "upper.first.bias": (0.2, of_others),
        "upper.last.weight": (0.02, 0.05),
        "upper.last.bias": (0.02, of_others),
        "uppermost.weight": (2.0, 0.05),
        "norm.weight": (2.0, 0.0),
        "norm.bias": (2.0, 0.0),
        "tokens.weight": (2.0, of_others),
    }


def test_prefix_without_parameters(tmp_path: Path) -> None:
    stage = Stage()
    with pytest.raises(ValueError, match=r"no trained parameters under \['lower'\]"):
        build_optimizer(stage, stage, make_options(tmp_path, {"lower": 0.1}))
    with pytest.raises(ValueError, match="no trained parameters under the trained parts"):
        build_optimizer(stage.frozen, stage.frozen, make_options(tmp_path, {}))
