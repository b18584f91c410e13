"""A loaded model in the form it runs fastest in, with the same results; training never sees it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from ovsam_cli.model.clip_encoder import AttentionPool
from ovsam_cli.model.ovsam import OVSAM


def prepare_for_inference(model: OVSAM) -> OVSAM:
    """Fold batch norms into the convolutions before them, and store filters channels last.

    CLIP's attention pool projects its positions now and not in every call. The model itself is
    changed and returned; its state dict no longer has the published keys, so it is not for saving
    or training.

    Args:
        model: in evaluation mode.

    Raises:
        ValueError: the model is in training mode, where batch norms follow the batch.
    """
    if any(isinstance(m, nn.BatchNorm2d) and m.training for m in model.modules()):
        raise ValueError("batch norms in training mode cannot be folded; call eval() before")
    fold_batch_norms(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, AttentionPool):
            module.hold_positions()
    return model


def fold_batch_norms(root: nn.Module) -> int:
    """Fold every batch norm that comes right after a convolution among its siblings.

    Siblings are the children of one module in the order they were registered, as the stem's and
    the bottlenecks' convolutions and norms are. A folded norm leaves an identity in its place.

    Args:
        root: whose parts are looked through; changed.

    Returns:
        The number of norms folded.
    """
    num_folded = 0
    for parent in list(root.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(conv, norm)
                setattr(parent, name, nn.Identity())
                num_folded += 1
    return num_folded


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """W' = W g / sqrt(var + eps), b' = beta + (b - mean) g / sqrt(var + eps); cast once."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.affine
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    before = norm.running_mean.new_zeros(()) if conv.bias is None else conv.bias
    bias = norm.bias.double() + (before.double() - norm.running_mean.double()) * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    needs_grad = conv.weight.requires_grad
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=needs_grad)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=needs_grad)
