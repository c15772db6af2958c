"""The same network with fewer channels: every inner width scaled by one share, as published "0.25x" networks are made.

The graph says which widths belong together: both sides of an addition, a gate and its map, whatever a depthwise
convolution, a norm or an activation hands on; a concatenation is as wide as its parts together. One width is then
chosen for each such set.
"""

import copy
import math
import operator
from collections import defaultdict

import torch
from torch import fx, nn
from torchvision.models import convnext, swin_transformer as swin

from dynlib import graphs
from dynlib.errors import InputError
from dynlib.ops import PadShortcut, kaiming
from dynlib.roles import Role, role
from dynlib.tracing import lies_in

# No width falls below this: with fewer channels the gradient of a strided 1x1 convolution, channels last, writes
# outside of its memory (torch 2.15 on an AVX2 processor) and the process dies later without a word.
FEWEST = 8

PRODUCERS = (Role.CONV, Role.TRANSPOSED, Role.LINEAR, Role.SHORTCUT)
ROLES = {
    **dict.fromkeys((nn.LayerNorm, convnext.LayerNorm2d, convnext.CNBlock), Role.NORM),
    **dict.fromkeys((swin.ShiftedWindowAttention, swin.ShiftedWindowAttentionV2), Role.NORM),
    **dict.fromkeys((swin.PatchMerging, swin.PatchMergingV2), Role.LINEAR),
    torch.permute: Role.POINTWISE,
}

Layout = tuple[tuple[fx.Node, int], ...]  # blocks of channels: the node that made them, how many


def thin(model: nn.Module, share: float) -> nn.Module:
    """A new network of the same form with all inner channels, hidden linear layers included, times `share`.

    Widths are rounded to whole channels, at least `FEWEST` where there were as many, and to a multiple of the groups
    where a grouped convolution makes or reads them, or of the heads where attention does; fewer channels than groups
    mean fewer groups, and depthwise stays depthwise. Inputs and outputs of the network keep their number. Weights are
    new: He et al. (ICCV 2015) for convolutions, torch's own elsewhere.

    Raises InputError where the share leaves (0, inf) or the network has an operation that nobody taught us.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
        raise InputError(f"share is {share!r}; it is the factor on every width, above 0")
    model = copy.deepcopy(model)
    traced = graphs.trace(model)
    model = graphs.finish(traced) if graphs.as_shortcuts(traced) else model
    for name, (channels_in, channels_out) in _Widths(traced, share).layers.items():
        resize(model.get_submodule(name), channels_in, channels_out)
    return model


class _Widths:
    """Settles the widths of a traced network; `layers` has (channels in, channels out) of every layer by its name."""

    def __init__(self, traced: fx.GraphModule, share: float):
        self.traced, self.share = traced, share
        self.layouts: dict[fx.Node, Layout] = {}
        self._classes = graphs.Classes()
        self._groups: dict[fx.Node, list[int]] = defaultdict(list)  # of the convolutions that make or read a block
        nodes = traced.graph.nodes
        self._roles = {node: role(traced, node, ROLES) for node in nodes}
        for node in nodes:
            self._place(node)
        self._multiple: dict[fx.Node, int] = defaultdict(lambda: 1)  # of the width of a set
        for block, groups in self._groups.items():
            found = self._classes.find(block)
            self._multiple[found] = math.lcm(self._multiple[found], *groups)
        self.layers = {node.target: self._sizes(node) for node in nodes if self._roles[node] in (*PRODUCERS, Role.NORM)}

    def _place(self, node: fx.Node) -> None:
        """The layout of a node, tied to those of its inputs."""
        kind, inputs = self._roles[node], node.all_input_nodes
        if kind == Role.OUTPUT:
            for value in inputs:
                self._keep(self.layouts[value])
        elif kind == Role.INPUT:
            first = next(m for m in self.traced.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
            self.layouts[node] = self._fresh(node, first.weight.shape[1])
            self._keep(self.layouts[node])
        elif kind in PRODUCERS:
            self.layouts[node] = self._produced(node, self.layouts[inputs[0]])
        elif kind in (Role.ADD, Role.MUL):
            maps = [value for value in inputs if self._roles[value] != Role.SHAPE]
            for other in maps[1:]:
                self._tie(node, self.layouts[maps[0]], self.layouts[other])
            self.layouts[node] = self.layouts[maps[0]]
        elif kind == Role.CAT:
            self.layouts[node] = tuple(block for value in node.args[0] for block in self.layouts[value])
        elif kind == Role.PART:
            self.layouts[node] = self._part(node, self.layouts[inputs[0]])
        elif kind == Role.SHUFFLE:  # all its blocks alike, so that their order does not matter
            self.layouts[node] = layout = self.layouts[inputs[0]]
            for block in layout[1:]:
                self._tie(node, layout[:1], (block,))
        elif kind != Role.SHAPE:
            self.layouts[node] = layout = self.layouts[inputs[0]]
            if kind == Role.NORM:
                self._check(node, layout)

    def _produced(self, node: fx.Node, source: Layout) -> Layout:
        layer = self.traced.get_submodule(node.target)
        if isinstance(layer, PadShortcut):
            return self._fresh(node, sum(channels for _, channels in source) + layer.new_channels)
        if isinstance(layer, nn.Linear):
            return self._fresh(node, layer.out_features)
        if isinstance(layer, swin.PatchMerging | swin.PatchMergingV2):
            return self._fresh(node, layer.reduction.out_features)
        if is_depthwise(layer):
            return source
        layout = self._fresh(node, layer.out_channels)
        for block, _ in (*source, *layout):
            self._groups[block].append(layer.groups)
        return layout

    def _check(self, node: fx.Node, layout: Layout) -> None:
        """A layer norm must be one over the channels; heads of attention must get equally many."""
        layer, channels = self.traced.get_submodule(node.target), sum(channels for _, channels in layout)
        if isinstance(layer, nn.LayerNorm) and layer.normalized_shape != (channels,):
            over = f"{layer.normalized_shape}, not over the {channels} channels"
            raise InputError(f"{node.target} ({type(layer).__name__}): is over {over}; no width fits")
        for block, _ in layout:
            self._groups[block].append(getattr(layer, "num_heads", 1))

    def _part(self, node: fx.Node, source: Layout) -> Layout:
        """Of a call of chunk the whole; of an item of its result a share of the blocks."""
        if node.target is not operator.getitem:
            return source
        chunks, which = node.args
        told, alike = (*chunks.args[1:], *chunks.kwargs.values()), len({channels for _, channels in source}) == 1
        if told[1:] != (1,) or which not in range(told[0]) or len(source) % told[0] or not alike:
            raise InputError(f"{lies_in(node)}: a part of channels that is no number of equal layers has no width")
        each = len(source) // told[0]
        return source[which * each : (which + 1) * each]

    def _fresh(self, node: fx.Node, channels: int) -> Layout:
        self._classes.add(node)
        return ((node, channels),)

    def _keep(self, layout: Layout) -> None:
        for block, _ in layout:
            self._classes.mark(block)

    def _tie(self, node: fx.Node, a: Layout, b: Layout) -> None:
        if [channels for _, channels in a] != [channels for _, channels in b]:
            raise InputError(f"{lies_in(node)}: joins concatenations of different parts; no width fits both")
        for (left, _), (right, _) in zip(a, b, strict=True):
            self._classes.union(left, right)

    def _width(self, layout: Layout) -> int:
        return sum(self._scaled(block, channels) for block, channels in layout)

    def _scaled(self, block: fx.Node, channels: int) -> int:
        if self._classes.marked(block):
            return channels
        width = max(min(FEWEST, channels), round(channels * self.share))
        multiple = self._multiple[self._classes.find(block)]
        return round(width / multiple) * multiple if width >= multiple else width

    def _sizes(self, node: fx.Node) -> tuple[int, int]:
        source = self.layouts[node.all_input_nodes[0]]
        layer, width = self.traced.get_submodule(node.target), self._width(source)
        if isinstance(layer, nn.Linear):  # a flattened map has several positions a channel
            width *= layer.in_features // sum(channels for _, channels in source)
        return width, self._width(self.layouts[node])


def is_depthwise(conv: nn.Module) -> bool:
    """Whether a convolution keeps every channel to itself."""
    return 1 < conv.groups == conv.in_channels == conv.out_channels


def resize(layer: nn.Module, channels_in: int, channels_out: int) -> None:
    """Give a layer other channels, in place, with new weights; groups are those that still divide both."""
    if isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = channels_in, channels_out
        _renew(layer, weight=(channels_out, channels_in), bias=(channels_out,))
        layer.reset_parameters()
    elif isinstance(layer, PadShortcut):
        if channels_out < channels_in:
            raise InputError(f"{layer} cannot pad {channels_in} channels to {channels_out}; allowed: a larger share")
        layer.before = layer.before * (channels_out - channels_in) // max(layer.new_channels, 1)
        layer.new_channels = channels_out - channels_in
    elif isinstance(layer, nn.modules.conv._ConvNd):
        depthwise = is_depthwise(layer)
        layer.groups = channels_in if depthwise else math.gcd(layer.groups, channels_in, channels_out)
        layer.in_channels, layer.out_channels = channels_in, channels_out
        first, second = (channels_in, channels_out) if layer.transposed else (channels_out, channels_in)
        _renew(layer, weight=(first, second // layer.groups, *layer.kernel_size), bias=(channels_out,))
        kaiming(layer)
    elif isinstance(layer, convnext.CNBlock):
        depthwise, _, norm, widen, _, narrow, _ = layer.block
        for part, sizes in ((depthwise, (1, 1)), (norm, (1, 1)), (widen, (1, 4)), (narrow, (4, 1))):
            resize(part, *(channels_out * size for size in sizes))
        layer.layer_scale = nn.Parameter(layer.layer_scale.detach().mean().repeat(channels_out, 1, 1))
    elif isinstance(layer, swin.ShiftedWindowAttention):
        if channels_out % layer.num_heads:
            raise InputError(f"{layer.num_heads} heads share {channels_out} channels; allowed: a larger share")
        resize(layer.qkv, channels_in, 3 * channels_out)
        resize(layer.proj, channels_out, channels_out)
    elif isinstance(layer, swin.PatchMerging | swin.PatchMergingV2):
        before = layer.reduction.in_features
        resize(layer.reduction, 4 * channels_in, channels_out)
        normed = 4 * channels_in if layer.norm.normalized_shape == (before,) else channels_out
        resize(layer.norm, normed, normed)
    else:
        assert isinstance(layer, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)
        if isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = (channels_out,)
        else:
            layer.num_features = channels_out
        _renew(layer, **dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels_out,)))
        layer.reset_parameters()


def _renew(layer: nn.Module, **shapes: tuple[int, ...]) -> None:
    """Parameters and buffers of new shapes, without values yet, where the layer has them."""
    for name, shape in shapes.items():
        if isinstance(old := getattr(layer, name, None), nn.Parameter):
            setattr(layer, name, nn.Parameter(torch.empty(shape, dtype=old.dtype, device=old.device)))
        elif old is not None:
            setattr(layer, name, torch.empty(shape, dtype=old.dtype, device=old.device))
