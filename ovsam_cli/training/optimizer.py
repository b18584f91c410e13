"""AdamW over the trained parts, in groups of one rate factor and one weight decay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim import AdamW

from ovsam_cli.training.schedule import LoopOptions, Undecayed

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def build_optimizer(module: nn.Module, trained: nn.Module, options: LoopOptions) -> AdamW:
    """The optimizer; each group's `factor` is what its learning rate is multiplied by.

    Args:
        module: the whole stage.
        trained: its trained parts; parameters without `requires_grad` are left out.
        options: of the loop.

    Raises:
        ValueError: a prefix of `rate_factors` names nothing, nothing is trained, or a parameter
            outside the trained parts requires a gradient.
    """
    known = {id(one) for one in trained.parameters()}
    for name, one in module.named_parameters():
        if one.requires_grad and id(one) not in known:
            raise ValueError(f"{name} requires a gradient but is not among the trained parts")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    used: set[str] = set()
    for name, parameter, decays in _iter_trained(trained, options.undecayed):
        prefix = _find_prefix(name, options.rate_factors)
        used.add(prefix)
        key = (options.rate_factors.get(prefix, 1.0), decays)
        groups.setdefault(key, []).append(parameter)
    unused = [prefix for prefix in options.rate_factors if prefix not in used]
    if unused or not groups:
        raise ValueError(f"no trained parameters under {unused or 'the trained parts'}")
    return AdamW(
        [
            {
                "params": parameters,
                "weight_decay": options.weight_decay if decays else 0.0,
                "factor": factor,
            }
            for (factor, decays), parameters in groups.items()
        ],
        lr=options.learning_rate,
        betas=options.betas,
        fused=True,  # one pass over a parameter instead of ten
    )


def set_rate(optimizer: AdamW, rate: float) -> None:
    """Set the learning rate of every group: `rate` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _iter_trained(
    module: nn.Module, undecayed: Undecayed
) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter, and whether it decays; shared parameters once."""
    kinds = NORMS if undecayed == "norms" else (*NORMS, nn.Embedding)
    spared = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, kinds)
        for parameter in part.parameters(recurse=False)
    }
    for name, parameter in module.named_parameters():
        is_spared = id(parameter) in spared or (undecayed == "vectors" and parameter.ndim <= 1)
        if parameter.requires_grad:
            yield name, parameter, not is_spared


def _find_prefix(name: str, factors: Mapping[str, float]) -> str:
    """The longest prefix of `name` that ends where a part of it ends; "" where there is none."""
    fitting = [one for one in factors if f"{name}.".startswith(f"{one}.")]
    return max(fitting, key=len, default="")
