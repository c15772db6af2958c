"""Freezing a network for inference on a CPU: batch norm folded, additions and ReLU fused into convolutions, kernels packed.

`Freezer` walks a traced network once with a real example and writes a second graph of what has to run, in the order in which
it has to run. Convolutions wait until it is known what follows them: a batch norm is folded into the kernel, an addition
and a ReLU are carried out by the convolution itself. oneDNN's convolutions take both and keep their kernels packed; they
are the same operations that the compiler's freezing emits, so nothing needs to be compiled and no C++ compiler is needed.
A method subclasses `Freezer` to write its own operations into the graph.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from dynlib.graphs import ADD, CONV, NORM, POINTWISE, role
from dynlib.ops import evaluating

_RELU = (nn.ReLU, F.relu, torch.relu, "relu", "relu_")
_NOTHING = (nn.Dropout, nn.Identity, F.dropout)


@dataclass
class Pending:
    """A convolution that is not written yet: what follows it may still become part of it."""

    node: fx.Node  # of the convolution in the source graph
    source: object  # its input, written
    scale: Tensor | None = None  # (C_out,), of the folded batch norm
    shift: Tensor | None = None
    residual: object = None  # a written value to be added
    relu: bool = False
    tail: list[fx.Node] = field(default_factory=list)  # the source nodes that it has taken in


def folded(conv: nn.Module, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Kernel (C_out, C_in / groups, K, K) and bias (C_out,) of a convolution with an affine map per channel behind it."""
    weight = conv.weight.detach()
    bias = torch.zeros(weight.shape[0]) if conv.bias is None else conv.bias.detach()
    if scale is None:
        return weight, bias
    return weight * scale[:, None, None, None], bias * scale + shift


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in evaluation mode."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift + norm.bias.detach() if norm.affine else shift


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, stride: list, padding: list, dilation: list, groups: int, relu: bool
) -> Tensor:
    """relu(conv(x)) with a packed kernel."""
    fused = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, fused, [], ""
    )


def convolve_add(
    x: Tensor, weight: Tensor, bias: Tensor, stride: list, padding: list, dilation: list, groups: int, relu: bool, other: Tensor
) -> Tensor:
    """relu(conv(x) + other) with a packed kernel."""
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, other, weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu" if relu else None, [], ""
    )
