"""What every node of a network's graph does to channels: its role.

Whether it mixes channels (conv, linear), keeps them apart (norm, pointwise, pool), demands two equal layouts (add, mul)
or lines layouts up (cat). Both octaves (which channels are low) and early exits (which stage owns a channel) follow
from roles alone.
"""

import operator
from collections.abc import Callable, Mapping
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.ops import StochasticDepth

from dynlib import settings
from dynlib.errors import InputError
from dynlib.ops import PadShortcut
from dynlib.tracing import lies_in


class Role(StrEnum):
    """What a node does to the channel dimension (dim 1)."""

    CONV, TRANSPOSED, LINEAR = "conv", "transposed conv", "linear"  # mixes channels by a kernel; always a layer
    SHORTCUT = "shortcut"  # subsamples and pads channels, without parameters
    NORM = "norm"  # one set of parameters a channel
    POINTWISE, POOL = "pointwise", "pool"  # the same for every channel, without parameters
    GLOBAL_POOL, FLATTEN = "global pool", "flatten"  # ends the map
    ADD, MUL, CAT = "add", "mul", "cat"
    PART, SHUFFLE = "part", "shuffle"  # chunks of the channels; their order changed, as in grouped networks
    SHAPE = "shape"  # asks for sizes, as in x.view(x.shape[0], -1)
    INPUT, OUTPUT = "input", "output"


Extra = Mapping[type[nn.Module] | Callable, Role]  # modules and functions that only one method knows


def _table(kinds: Mapping[Role, tuple]) -> dict:
    return {kind: role for role, listed in kinds.items() for kind in listed}


_MODULES: dict[type[nn.Module], Role] = _table(
    {
        Role.CONV: (nn.Conv2d, nn.Conv3d),
        Role.TRANSPOSED: (nn.ConvTranspose2d, nn.ConvTranspose3d),
        Role.LINEAR: (nn.Linear,),
        Role.NORM: (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        Role.POINTWISE: (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.SELU, nn.CELU, nn.Mish, nn.Hardswish),
            *(nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Softplus),
            *(nn.Dropout, nn.Dropout2d, nn.Identity, StochasticDepth),
        ),
        Role.POOL: (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d),
        Role.GLOBAL_POOL: (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        Role.FLATTEN: (nn.Flatten,),
    }
)
_FUNCTIONS: dict[Callable, Role] = _table(
    {
        Role.ADD: (operator.add, operator.iadd, torch.add),
        Role.MUL: (operator.mul, operator.imul, torch.mul),
        Role.CAT: (torch.cat, torch.concat, torch.concatenate),
        Role.POINTWISE: (
            *(F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.selu, F.celu, F.mish, F.hardswish),
            *(F.sigmoid, torch.sigmoid, F.hardsigmoid, F.tanh, torch.tanh, F.hardtanh, F.softplus, torch.clamp),
        ),
        Role.POOL: (F.max_pool2d, F.max_pool3d, F.avg_pool2d, F.avg_pool3d),
        Role.GLOBAL_POOL: (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.mean),
        Role.FLATTEN: (torch.flatten, torch.squeeze),
        Role.PART: (torch.chunk,),
    }
)
_METHODS: dict[str, Role] = _table(
    {
        Role.ADD: ("add", "add_"),
        Role.MUL: ("mul", "mul_"),
        Role.POINTWISE: ("relu", "relu_", "sigmoid", "contiguous", "clone"),
        Role.FLATTEN: ("flatten", "view", "reshape", "squeeze"),
        Role.GLOBAL_POOL: ("mean",),
        Role.PART: ("chunk",),
        Role.SHAPE: ("size",),
    }
)
_WITH_A_NUMBER = (operator.add, operator.sub, operator.mul, operator.truediv)  # behind a map: the same for each channel


def _shuffles(node: fx.Node) -> bool:
    """Whether a node is the step in the middle of a channel shuffle: .view(n, groups, -1, h, w).transpose(1, 2)."""
    if node.target not in ("transpose", torch.transpose) or node.args[1:] != (1, 2):
        return False
    grouped = node.args[0]
    return isinstance(grouped, fx.Node) and grouped.target in ("view", "reshape") and len(grouped.args) == 6


def module_role(kind: type[nn.Module]) -> Role | None:
    """Role of a module type in the table, or of one that inherits its forward (torchvision's convolutions of clips)."""
    bases = (base for base in kind.__mro__ if base in _MODULES and kind.forward is base.forward)
    return next((_MODULES[base] for base in bases), None)


def find_role(traced: fx.GraphModule, node: fx.Node, extra: Extra | None = None) -> Role | None:
    """What the node does to channels, or None where nobody taught us the operation."""
    if node.op in ("placeholder", "output"):
        return Role.INPUT if node.op == "placeholder" else Role.OUTPUT
    if node.op == "call_module":
        part = traced.get_submodule(node.target)
        kind = type(part)
        if kind is PadShortcut:
            return Role.SHORTCUT
        if kind is nn.Upsample:
            return Role.POOL if part.size is None else None  # to one size, both bands of an octave would have it
        return (extra or {}).get(kind) or module_role(kind)
    if node.op == "call_function":
        if node.target is getattr:
            return Role.SHAPE if node.args[1] == "shape" else None
        if node.target in (operator.getitem, operator.floordiv):  # of sizes or parts; of a map it would be a slice
            source = find_role(traced, node.args[0]) if isinstance(node.args[0], fx.Node) else None
            return source if source == Role.SHAPE or (node.target is operator.getitem and source == Role.PART) else None
        if node.target is F.interpolate:
            return Role.POOL if len(node.args) == 1 and node.kwargs.get("size") is None else None
        if _shuffles(node):
            return Role.SHUFFLE
        if node.target in _WITH_A_NUMBER and isinstance(node.args[1], int | float):
            return Role.POINTWISE
        return (extra or {}).get(node.target) or _FUNCTIONS.get(node.target)
    if node.op == "call_method":
        return Role.SHUFFLE if _shuffles(node) else _METHODS.get(node.target)
    return None


def role(traced: fx.GraphModule, node: fx.Node, extra: Extra | None = None) -> Role:
    """As `find_role`, but raises InputError naming a node that nobody has a rule for: a wrong guess would be silent."""
    if (found := find_role(traced, node, extra)) is not None:
        return found
    what = type(traced.get_submodule(node.target)) if node.op == "call_module" else node.target
    name = getattr(what, "__name__", str(what))
    known = {kind.__name__ for kind in _MODULES} | {fn.__name__ for fn in _FUNCTIONS} | _METHODS.keys()
    close = ", ".join(settings.nearest(name, sorted(known))[: settings.NEAREST])
    where = node.target if node.op == "call_module" else lies_in(node)
    raise InputError(f"{where:.90}: no rule for the operation {name:.60}; the closest known are {close}")
