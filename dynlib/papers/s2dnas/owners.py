"""Who owns a channel: the stage of every channel of every tensor, found from the graph.

Stage j owns the channel groups between two neighbouring cuts. What makes channels (a convolution) makes them with the
cuts of its map size; everything else passes its input's owners on. Which map sizes must share their cuts follows from
the additions: a stem that is pooled and then added to is cut like what is added.
"""

import operator
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from dynlib.errors import InputError
from dynlib.graphs import Classes, read
from dynlib.papers.s2dnas.layers import PiecePick, part, shuffled
from dynlib.roles import Role, find_role, role
from dynlib.tracing import lies_in


class Block(NamedTuple):
    """Channels that were made together."""

    size: tuple[int, ...] | None  # of the map that they were made at, in px of the probe; None: the image itself
    channels: int
    repeat: int = 1  # numbers a channel became when its map was flattened, or by a depthwise layer


Layout = tuple[Block, ...]


def edges(channels: int, cuts: Sequence[int]) -> tuple[int, ...]:
    """The cuts, given in groups with the number of groups last, in channels: rounded, halves up. (0, ..., channels)."""
    groups = cuts[-1]
    return tuple((2 * channels * cut + groups) // (2 * groups) for cut in cuts)


def is_read(bits: Sequence[int], source: int, reader: int, stages: int) -> bool:
    """Whether stage `reader` reads what stage `source` owns: m_ij of the paper, `bits` its entries i < j row by row."""
    if source >= reader:
        return source == reader
    before = sum(stages - 1 - row for row in range(source))
    return bool(bits[before + reader - source - 1])


class Plan:
    """The layout of every node of a traced network, and the groups of map sizes that share their cuts."""

    def __init__(self, model: nn.Module, example: Tensor | None = None):
        self.traced = read(model, example)
        _as_picks(self.traced)
        self.roles = {node: role(self.traced, node, {PiecePick: Role.SHUFFLE}) for node in self.traced.graph.nodes}
        self._classes = Classes()
        self.layouts: dict[fx.Node, Layout | None] = {}
        self.head = self._head()
        self._refuse_sharing()
        for node in self.traced.graph.nodes:
            self.layouts[node] = self._layout(node)
        made = [block.size for node in self.layouts if node is not self.head for block in self.layouts[node] or ()]
        self.groups: list[tuple[int, ...]] = list(dict.fromkeys(self._classes.find(s) for s in made if s is not None))
        if not self.groups:
            raise InputError(f"{self.head.target}: no convolution before it; there is nothing to cut into stages")

    def channel_groups(self, node: fx.Node) -> tuple[tuple[int | None, int, int], ...]:
        """(index of the group of map sizes, None for the image; channels; repeat) of each block of a node."""
        return tuple(
            (None if size is None else self.groups.index(self._classes.find(size)), channels, repeat)
            for size, channels, repeat in self.layouts[node]
        )

    def _head(self) -> fx.Node:
        (output,) = (node for node in self.traced.graph.nodes if node.op == "output")
        head = output.args[0]
        while isinstance(head, fx.Node) and self._does_nothing(head):  # some libraries flatten their scores
            source = head.all_input_nodes[0]
            head.replace_all_uses_with(source)
            self.traced.graph.erase_node(head)
            del self.roles[head]
            head = source
        if not isinstance(head, fx.Node) or self.roles[head] != Role.LINEAR:
            raise InputError(
                f"{head}: a network with stages ends in one linear layer, which each stage gets of its own"
            )
        return head

    def _does_nothing(self, node: fx.Node) -> bool:
        """Whether a node flattens what is flat, or is an identity."""
        layer = self.traced.get_submodule(node.target) if node.op == "call_module" else None
        same = len(node.all_input_nodes) == 1 and node.all_input_nodes[0].meta["shape"] == node.meta["shape"]
        return same and (self.roles[node] == Role.FLATTEN or type(layer) is nn.Identity)

    def _refuse_sharing(self) -> None:
        seen = set()
        for node in self.traced.graph.nodes:
            if self.roles[node] in (Role.CONV, Role.LINEAR, Role.NORM, Role.SHORTCUT):
                if node.target in seen:
                    raise InputError(f"{node.target}: the layer is used twice; stages need one layer for each place")
                seen.add(node.target)

    def _fresh(self, node: fx.Node, channels: int) -> Layout:
        """Channels made here: at the node's own map size; of a vector pooled from a map, at that map's."""
        shape = node.meta["shape"]
        size = shape[2:] if prod(shape[2:]) > 1 else self.layouts[node.all_input_nodes[0]][-1].size
        self._classes.add(size)
        return (Block(size, channels),)

    def _layout(self, node: fx.Node) -> Layout | None:
        kind, inputs = self.roles[node], node.all_input_nodes
        if kind in (Role.OUTPUT, Role.SHAPE):
            return None
        if kind == Role.INPUT:
            return (Block(None, node.meta["shape"][1]),)
        layouts = [self.layouts[value] for value in inputs if self.roles[value] != Role.SHAPE]
        if kind in (Role.CONV, Role.LINEAR):
            return self._mixed(node, layouts[0])
        if kind == Role.SHORTCUT:
            return self._fresh(node, node.meta["shape"][1])
        if kind in (Role.NORM, Role.POINTWISE, Role.POOL):
            return layouts[0]
        if kind in (Role.GLOBAL_POOL, Role.FLATTEN):
            return self._pooled(node, layouts[0])
        if kind == Role.SHUFFLE:
            return self._picked(node, layouts[0])
        if kind in (Role.ADD, Role.MUL):
            return self._tied(node, layouts)
        if kind == Role.CAT:
            return self._joined(node)
        raise InputError(f"{node.target}: a {kind} cannot be cut into stages")

    def _mixed(self, node: fx.Node, source: Layout) -> Layout:
        layer = self.traced.get_submodule(node.target)
        if isinstance(layer, nn.Linear):
            return self._fresh(node, layer.out_features)
        if not isinstance(layer, nn.Conv2d):
            raise InputError(f"{node.target}: only nn.Conv2d and nn.Linear can be cut into stages")
        if layer.groups == 1:
            return self._fresh(node, layer.out_channels)
        if layer.groups == layer.in_channels:  # depthwise
            return tuple(block._replace(repeat=block.repeat * (layer.out_channels // layer.groups)) for block in source)
        if layer.in_channels != layer.out_channels:
            raise InputError(
                f"{node.target}: {layer.groups} groups from {layer.in_channels} to {layer.out_channels} channels; "
                "a grouped convolution can be cut where it has as many outputs as inputs"
            )
        return source

    def _pooled(self, node: fx.Node, source: Layout) -> Layout:
        channels, shape = sum(block.channels * block.repeat for block in source), node.meta["shape"]
        if len(shape) < 2 or shape[0] != 1 or shape[1] % channels:
            raise InputError(f"{lies_in(node)}: {node.target} of {channels} channels to {shape} mixes channels")
        return tuple(block._replace(repeat=block.repeat * (shape[1] // channels)) for block in source)

    def _tied(self, node: fx.Node, layouts: list[Layout]) -> Layout:
        first = layouts[0]
        for other in layouts[1:]:
            if [block[1:] for block in first] != [block[1:] for block in other]:
                raise InputError(f"{lies_in(node)}: its two sides are of different channels and cannot be cut alike")
            for a, b in zip(first, other, strict=True):
                if (a.size is None) != (b.size is None):
                    raise InputError(f"{lies_in(node)}: the image meets a feature map; no stage owns the image")
                if a.size is not None:
                    self._classes.union(a.size, b.size)
        return first

    def _picked(self, node: fx.Node, source: Layout) -> Layout:
        """Layout of a shuffle, or of a part: blocks that are all alike, the same or some of them."""
        taken, pick = node.meta["shape"][1], self.traced.get_submodule(node.target).pick
        count = len(source) * taken // sum(block.channels * block.repeat for block in source)
        if len({block[1:] for block in source}) > 1 or len(source) % pick.args[-1]:
            raise InputError(f"{lies_in(node)}: its channels were not made in equal numbers by equal layers")
        for block in source[1:]:
            self._classes.union(source[0].size, block.size)
        return source[:count]

    def _joined(self, node: fx.Node) -> Layout:
        if (*node.args[1:], *node.kwargs.values()) not in ((1,), (-3,)):
            raise InputError(f"{lies_in(node)}: only a concatenation of channels, dim 1, can be cut into stages")
        layout = tuple(block for value in node.args[0] for block in self.layouts[value])
        if any(block.size is None for block in layout):
            raise InputError(f"{lies_in(node)}: the image meets a feature map; no stage owns the image")
        return layout


def _as_picks(traced: fx.GraphModule) -> None:
    """Put layers in the place of channel shuffles, see `Role.SHUFFLE`, and of the parts that chunk gives."""
    for node in list(traced.graph.nodes):
        kind, last = find_role(traced, node), node
        if kind == Role.SHUFFLE:
            grouped, source = node.args[0], node.args[0].args[0]
            while len(last.users) == 1 and last.target not in ("view", "reshape"):
                last = next(iter(last.users))
                if last.target not in ("contiguous", "view", "reshape"):
                    break
            n, channels, *side = source.meta["shape"]
            groups = grouped.meta["shape"][1]
            pick, wanted = partial(shuffled, groups), [(n, groups, channels // groups, *side), (n, channels, *side)]
            if [grouped.meta["shape"], last.meta.get("shape")] != wanted:
                continue
        elif kind == Role.PART and node.target is operator.getitem and isinstance(node.args[1], int):
            chunks, source = node.args[0], node.args[0].args[0]
            told = (*chunks.args[1:], *chunks.kwargs.values())
            if told[1:] != (1,):
                continue
            pick = partial(part, node.args[1], told[0])
        else:
            continue
        name = f"{last.name}_pick"
        traced.add_submodule(name, PiecePick(pick))
        with traced.graph.inserting_before(last):
            new = traced.graph.call_module(name, (source,))
        new.meta["shape"] = last.meta["shape"]
        last.replace_all_uses_with(new)
    for node in reversed(list(traced.graph.nodes)):
        idle = (Role.SHAPE, Role.PART, Role.SHUFFLE, Role.FLATTEN)
        if not node.users and (find_role(traced, node) in idle or node.target == "contiguous"):
            traced.graph.erase_node(node)
    traced.recompile()


def owners(
    name: str, layout: Sequence[tuple[int | None, int, int]], cuts: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Owner stage and group of map sizes (C,), int64, of each channel of a layout from `Plan.channel_groups`.

    The image's channels count as stage 0's, in group -1. Raises InputError where a stage would own nothing.
    """
    stage_of, group_of = [], []
    for group, channels, repeat in layout:
        if group is None:
            counts = [channels]
        else:
            edge = edges(channels, cuts[group])
            counts = [b - a for a, b in pairwise(edge)]
            if 0 in counts:
                raise InputError(
                    f"{name}: cuts {list(cuts[group])} give stage {counts.index(0) + 1} none of its {channels} channels"
                )
        stage_of.append(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts) * repeat))
        group_of.append(torch.full((channels * repeat,), -1 if group is None else group))
    return torch.cat(stage_of), torch.cat(group_of)


def columns(stage_of: Tensor, group_of: Tensor, reuse: Sequence[Sequence[int]], stages: int) -> list[Tensor]:
    """For each stage, which channels (indices, int64) a layer that has these inputs reads; the image is always read."""
    read = []
    for reader in range(stages):
        mask = group_of == -1
        for group, bits in enumerate(reuse):
            sources = [i for i in range(reader + 1) if is_read(bits, i, reader, stages)]
            mask |= (group_of == group) & torch.isin(stage_of, torch.tensor(sources))
        read.append(mask.nonzero().flatten())
    return read
