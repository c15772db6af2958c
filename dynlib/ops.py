"""Tensor functions and small tools that two papers share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros added below and to the right of a map (N, C, H, W) until both sides are multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode; every part gets its own mode back, frozen parts included."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in modes:
            part.training = training


@torch.no_grad()
def output_of(model: nn.Module, layer: str, *inputs: Tensor) -> object:
    """What the named layer yields while the model runs on the inputs in evaluation mode; of several calls, the last."""
    found = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: found.append(output))
    try:
        with evaluating(model):
            model(*inputs)
    finally:
        hook.remove()
    return found[-1]
