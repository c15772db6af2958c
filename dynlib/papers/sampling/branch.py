"""Any residual block whose branch keeps the size of its map, found from the block's own graph.

A block is x + branch(x), with an activation behind it or not. Its branch may hold convolutions of stride 1, linear
layers over the channels of each position, norms, activations and gates (squeeze and excitation). What reads more than
one position, a kernel or a pooling, gets a map whose unsampled positions are filled, and so does the sum: all else is
computed at the samples alone. With one mask it is the branch's; with two, what lies in front of the last kernel that
reads neighbours has its own; with three, the last convolution too.
"""

import inspect
import operator
from typing import NamedTuple

from torch import fx, nn
from torchvision.ops import Permute

from dynlib.errors import InputError
from dynlib.graphs import finish, trace
from dynlib.networks import Network
from dynlib.papers.sampling.interpolate import WINDOWED, ZEROS, Filler
from dynlib.papers.sampling.masks import Sampler
from dynlib.roles import Role, find_role

_EACH = {Permute: Role.POINTWISE, nn.LayerNorm: Role.NORM}  # what a branch may hold besides, position by position
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # dims of a map whose channels go last, and first again
_VECTOR = -1  # one number a channel, in place of the mask that a map has


class Integration(NamedTuple):
    """What sampling does to a block; layers by their names in it."""

    shares: tuple[float, ...]  # of each mask in the block's sparse loss; they add up to 1
    masked: dict[str, int]  # convolution -> its mask
    filled: dict[str, tuple[str, int]]  # filler -> the convolution whose outputs it makes, mask


def branch_of(block: nn.Module, masks: int) -> "Branch | None":
    """What `sampled_branch` asks of a block, or None where it is no such block. Nothing is changed."""
    if {"samplers", "fillers"} & dict(block.named_children()).keys():  # names that it will need
        return None
    if len(inspect.signature(block.forward).parameters) != 1:  # whoever calls it may give more than the map
        return None
    try:
        branch = Branch(trace(block, leaves=(Permute,)), masks)
    except InputError:
        return None
    return branch if branch.fits else None


def sampled_branch(
    branch: "Branch", number: int, *, kind: str, window: int, sigma: float, epsilon: float, **sampler
) -> Network:
    """The block with masks; it shares the layers, under their names, and `meta["integration"]` tells what was done.

    The arguments are those of `block.SampledBlock`; `reuse` takes the block's input.
    """
    traced = branch.traced
    first = traced.get_submodule(branch.convs[0].target)
    samplers = [Sampler(first.in_channels, 1, number + index, **sampler) for index in range(len(branch.shares))]
    traced.add_module("samplers", nn.ModuleList(samplers))
    traced.add_module("fillers", nn.ModuleList())
    x, masks, filled = branch.x, [], {}
    with traced.graph.inserting_before(branch.inside[0]):
        for index in range(len(samplers)):
            sample = traced.graph.call_module(f"samplers.{index}", (x,))
            masks.append(traced.graph.call_function(operator.getitem, (sample, 0)))
    for reader, source in branch.across:
        mask, is_end = branch.at[source], reader is branch.sum
        name = f"fillers.{len(filled)}"
        filler = Filler(ZEROS if is_end and kind not in WINDOWED else kind, window, sigma, epsilon)
        traced.fillers.append(filler)
        with traced.graph.inserting_before(reader):
            reader.replace_input_with(source, traced.graph.call_module(name, (source, masks[mask], x)))
        filled[name] = (branch.maker[source].target, mask)
    traced.samplers.to(first.weight), traced.fillers.to(first.weight)
    masked = {conv.target: branch.at[conv] for conv in branch.convs}
    traced.meta |= {"integration": Integration(branch.shares, masked, filled), "is_part": True}
    return finish(traced)


class Branch:
    """What a block's graph is made of; `fits` tells whether it is one that can be sampled."""

    def __init__(self, traced: fx.GraphModule, masks: int):
        self.traced = traced
        self.at: dict[fx.Node, int | None] = {}  # the mask of a node; None: computed everywhere
        self.maker: dict[fx.Node, fx.Node] = {}  # the convolution that made a node's channels
        self.across: list[tuple[fx.Node, fx.Node]] = []  # (reader, what it reads that has to be filled)
        self._last: set[fx.Node] = set()  # maps whose channels go last
        self.fits = self._find_sum() and self._find_convs(masks) and all(map(self._step, self.inside)) and self._end()

    def _kind(self, node: fx.Node) -> str | None:
        return find_role(self.traced, node, _EACH)

    def _layer(self, node: fx.Node) -> nn.Module | None:
        return self.traced.get_submodule(node.target) if node.op == "call_module" else None

    def _find_sum(self) -> bool:
        """Whether the block ends in x + something, activations looked through."""
        nodes = list(self.traced.graph.nodes)
        self.x, node = nodes[0], nodes[-1].args[0]
        while isinstance(node, fx.Node) and self._kind(node) == Role.POINTWISE and len(node.all_input_nodes) == 1:
            node = node.all_input_nodes[0]
        if not isinstance(node, fx.Node) or self._kind(node) != Role.ADD or node.kwargs or len(node.args) != 2:
            return False
        self.sum, ends = node, [value for value in node.args if value is not self.x]
        if len(ends) != 1 or not isinstance(ends[0], fx.Node):
            return False
        self.end, self.inside = ends[0], nodes[1 : nodes.index(node)]
        self.at[self.x] = None
        return True

    def _find_convs(self, masks: int) -> bool:
        """The layers that are computed at samples, and with which of them a mask starts."""
        behind: set[fx.Node] = set()  # a pooling: a gate's
        for node in self.inside:
            sources = node.all_input_nodes
            if self._kind(node) == Role.GLOBAL_POOL or (sources and behind.issuperset(sources)):
                behind.add(node)
        mixes = (Role.CONV, Role.LINEAR)
        self.convs = [node for node in self.inside if self._kind(node) in mixes and node not in behind]
        layers = [self._layer(node) for node in self.convs]
        kernels = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
        if not kernels or kernels[0] != 0 or len({*layers}) != len(layers):
            return False
        wide = [i for i in kernels if max(layers[i].kernel_size) > 1]
        starts = sorted({0, *wide[-1:], kernels[-1]} if masks == 3 else {0, *wide[-1:]} if masks == 2 else {0})
        self._mask = {node: sum(i >= start for start in starts) - 1 for i, node in enumerate(self.convs)}
        sizes = [0] * len(starts)
        for node, layer in zip(self.convs, layers, strict=True):
            sizes[self._mask[node]] += layer.weight.numel()
        self.shares = tuple(size / sum(sizes) for size in sizes)  # all stand at as many positions
        return True

    def _step(self, node: fx.Node) -> bool:
        """Whether a node of the branch is known; notes where it stands and what has to be filled for it."""
        kind, layer, sources = self._kind(node), self._layer(node), node.all_input_nodes
        if node.op == "get_attr" or (sources and all(self.at.get(value) == _VECTOR for value in sources)):
            self.at[node] = _VECTOR
            return node.op == "get_attr" or kind in (Role.CONV, Role.LINEAR, Role.NORM, Role.POINTWISE, Role.FLATTEN)
        maps = [value for value in sources if self.at.get(value, _VECTOR) != _VECTOR]
        if len(maps) != 1 or (len(sources) > 1 and kind != Role.MUL):
            return False
        (source,) = maps
        self.at[node], self.maker[node] = self.at[source], self.maker.get(source)
        is_last = source in self._last
        if isinstance(layer, Permute):
            self._last |= set() if is_last else {node}
            return layer.dims == (_FIRST if is_last else _LAST)
        self._last |= {node} if is_last else set()
        if node in self._mask:
            self.at[node], self.maker[node] = self._mask[node], node
            wide = isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1
            if self.at[source] is not None and (wide or self.at[source] != self.at[node]):
                self.across.append((node, source))
            return is_last if isinstance(layer, nn.Linear) else not is_last and _keeps_size(layer)
        if kind == Role.GLOBAL_POOL:
            if self.at[source] is not None:
                self.across.append((node, source))
            self.at[node] = _VECTOR
            return not is_last and _is_global(node, layer)
        if kind == Role.NORM:
            return is_last == isinstance(layer, nn.LayerNorm)
        return kind in (Role.POINTWISE, Role.MUL)

    def _end(self) -> bool:
        """Whether the branch ends in a sampled map, which the sum then reads filled."""
        self.across.append((self.sum, self.end))
        return self.at.get(self.end) not in (None, _VECTOR) and self.end not in self._last


def _keeps_size(conv: nn.Module) -> bool:
    if type(conv) is not nn.Conv2d and type(conv).forward is not nn.Conv2d.forward:
        return False
    reach = [rate * (side - 1) for rate, side in zip(conv.dilation, conv.kernel_size, strict=True)]
    same = conv.padding == "same" or [2 * pad for pad in conv.padding] == reach
    return same and max(conv.stride) == 1


def _is_global(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a pooling leaves one position."""
    if layer is not None:
        return layer.output_size in (1, (1, 1), [1, 1])
    told = [*node.args[1:], *node.kwargs.values()]
    size = told[0] if told else None
    named = (1, (1, 1), [1, 1]) if getattr(node.target, "__name__", "").startswith("adaptive") else ()
    return size in named or (isinstance(size, list | tuple) and sorted(d % 4 for d in size) == [2, 3])
