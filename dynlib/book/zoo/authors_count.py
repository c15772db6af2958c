"""The count behind OctConv's published figures, operator by operator: pooling, activations and biases cost too."""

from collections.abc import Callable
from math import ceil, floor, prod
from typing import Any

import torch

aten = torch.ops.aten


def _convolution(x, weight, bias, stride, padding, dilation, transposed, *_, out_shape) -> int:
    pixels = (x if transposed else out_shape)[2:]
    return x[0] * prod(weight) * prod(pixels) + (prod(out_shape) if bias else 0)


def _linear_with_bias(bias, x, weight, *_, out_shape, **__) -> int:
    return prod(x) * weight[1] + prod(out_shape)


def _max_pool(x, kernel, *_, out_shape) -> int:
    return _avg_pool(x, kernel, out_shape=out_shape[0])  # [1] are the indices


def _avg_pool(x, kernel, *_, out_shape) -> int:
    window = kernel[0] ** (len(x) - 2) if len(kernel) == 1 else prod(kernel)
    return window * prod(out_shape)


def _adaptive_pool(x, out_size, *_, out_shape) -> int:
    """Window i of o along a side of n pixels covers floor(i n / o) up to ceil((i + 1) n / o)."""
    sides = zip(x[2:], out_shape[2:], strict=True)
    windows = (sum(ceil((i + 1) * n / o) - floor(i * n / o) for i in range(o)) for n, o in sides)
    return prod(x[:2]) * prod(windows)


def _one_per_input(x, *_, **__) -> int:
    return prod(x)


AUTHORS: dict[Any, Callable[..., int]] = {
    aten.convolution: _convolution,
    aten.addmm: _linear_with_bias,
    aten.max_pool2d_with_indices: _max_pool,
    aten.max_pool3d_with_indices: _max_pool,
    aten.avg_pool2d: _avg_pool,
    aten.avg_pool3d: _avg_pool,
    aten._adaptive_avg_pool2d: _adaptive_pool,
    aten._adaptive_avg_pool3d: _adaptive_pool,
    aten.mean: _one_per_input,  # global average pooling arrives as a mean
    aten.relu: _one_per_input,
    aten.relu_: _one_per_input,
}
"""Operator -> count, from shapes: the rule of the counter that OctConv's authors credit (Chen et al., ICCV 2019).

Convolution and linear layer: one per multiply-add, one more per output where there is a bias. Pooling: k*k per output;
global pooling: one per input. ReLU: one per element. Batch norm, addition, up-sampling and the rest: free; so is ReLU6,
because their framework calls it a clip. Their Gluon networks were counted without ReLU except in stems, because Gluon's
activations are another kind of node; here every ReLU counts. ResNet-50 at 224 px comes to 4.103 G in their
pre-activation form and to 4.101 G in torchvision's; 4.089 G of either are multiply-adds.
"""
