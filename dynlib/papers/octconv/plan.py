"""Which channels of every tensor are low: one pass over a network's graph gathers the constraints, then all is settled.

Every map has a *layout*: blocks of channels, each with the node that made it. Both sides of an addition share one; a
concatenation lines blocks up; a depthwise convolution, a norm, an activation keep theirs. A block is plain where
something that reads it wants a plain tensor; else its share alpha is low.

A gate is a product of a map with one number a channel, pooled from a map (squeeze and excitation). The means of the
high and of the low channels are one vector, so the layers of the gate are plain and shared by both bands, as in the
authors' code; only the last one's rows stand in the order of the map that it gates.

An operation that nobody taught us reads plain tensors and yields plain ones: a channel shuffle, attention.
"""

from fnmatch import fnmatch
from itertools import takewhile
from math import prod

import torch
from torch import fx, nn

from dynlib.backbones.thin import is_depthwise
from dynlib.errors import InputError
from dynlib.graphs import Classes, probe_px, reduction
from dynlib.papers.octconv.ops import Split, split_channels
from dynlib.roles import Role, find_role, role
from dynlib.tracing import lies_in

KERNELS = (Role.CONV, Role.TRANSPOSED)

Layout = tuple[tuple[fx.Node, int], ...]  # blocks of channels: the node that made them, how many


class Plan:
    """The settled splits of a traced network, for a share `alpha`; `vanilla` are names of layers with a plain output.

    Raises InputError naming the pattern that fits no layer, or the operation without a rule that leaves nothing low.
    """

    def __init__(self, traced: fx.GraphModule, alpha: float, vanilla: tuple[str, ...]):
        self.traced, self.alpha = traced, alpha
        self.roles = {node: find_role(traced, node) for node in traced.graph.nodes}
        self.layouts: dict[fx.Node, Layout | None] = {}
        self.vectors: set[fx.Node] = set()  # one number a channel, plain tensors in the order of their layout
        self.entrances: list[tuple[fx.Node, fx.Node]] = []  # (addition, plain operand) where the stem meets an octave
        self._classes = Classes()
        self.convs = [node for node in traced.graph.nodes if self.roles[node] in KERNELS]
        if not self.convs:
            raise InputError(f"{type(traced).__name__} has no convolution; octaves need a convolutional network")
        named = self._named(vanilla)
        self.stem = [self.convs[0], *takewhile(named.__contains__, self.convs[1:])]
        for node in traced.graph.nodes:
            self.layouts[node] = self._layout(node)
        for node in named if vanilla else self._last_stage():
            self._mark(self.layouts[node])
        unknown = [node for node in traced.graph.nodes if self.roles[node] is None]
        if unknown and alpha and not any(self.split(conv).low for conv in self.convs if self.layouts[conv]):
            self._refuse(unknown[0])

    def _refuse(self, node: fx.Node) -> None:
        """Say why the first node without a rule leaves nothing low."""
        if len(self.convs) == 1:
            why = "is its only convolution, which reads the image; octaves cut those behind it"
            raise InputError(f"{type(self.traced).__name__}: {self.convs[0].target} {why}")
        if node.op == "call_module" and isinstance(norm := self.traced.get_submodule(node.target), nn.LayerNorm):
            why = "norms over all channels, which octaves hold at two sizes; allowed: batch norms"
            raise InputError(f"{node.target} ({type(norm).__name__}): {why}")
        role(self.traced, node)

    def split(self, node: fx.Node) -> Split:
        """The settled split of a node's output; a vector is one plain tensor."""
        low = 0 if node in self.vectors else sum(self._low(block) for block in self.layouts[node])
        return Split(sum(channels for _, channels in self.layouts[node]) - low, low)

    def order(self, node: fx.Node) -> torch.Tensor:
        """Indices that bring the node's channels into octave order: the high ones of every block, then the low ones."""
        high, low, start = [], [], 0
        for block in self.layouts[node]:
            middle, stop = start + block[1] - self._low(block), start + block[1]
            high.extend(range(start, middle))
            low.extend(range(middle, stop))
            start = stop
        return torch.tensor(high + low)

    def _low(self, block: tuple[fx.Node, int]) -> int:
        node, channels = block
        return 0 if self._classes.marked(node) else split_channels(channels, self.alpha).low

    def _mark(self, layout: Layout | None) -> None:
        for node, _ in layout or ():
            self._classes.mark(node)

    def _fresh(self, node: fx.Node, plain: bool = False) -> Layout:
        self._classes.add(node)
        layout = ((node, node.meta["shape"][1]),)
        if plain:
            self._mark(layout)
        return layout

    def _layout(self, node: fx.Node) -> Layout | None:
        """Channel blocks of the node's output; ties and marks are made on the way."""
        kind, inputs = self.roles[node], node.all_input_nodes
        first = self.layouts[inputs[0]] if inputs else None
        if kind == Role.INPUT:
            return self._fresh(node, plain=True)
        if first is None or kind in (None, Role.PART, Role.SHUFFLE):  # behind the last map, or unknown
            for value in inputs:
                self._mark(self.layouts[value])
            return self._fresh(node, plain=True) if self._is_map(node) else None
        if kind == Role.MUL:
            return self._gated(node)
        if inputs[0] in self.vectors or (kind == Role.GLOBAL_POOL and self._is_gate(node)):
            self.vectors.add(node)
            return self._fresh(node, plain=True) if kind in (Role.CONV, Role.LINEAR) else first
        if kind in (*KERNELS, Role.SHORTCUT):
            if kind == Role.CONV and is_depthwise(self.traced.get_submodule(node.target)):
                return first
            return self._fresh(node, plain=node in self.stem)
        if kind in (Role.NORM, Role.POINTWISE, Role.POOL):
            return first
        if kind == Role.ADD:
            if len(node.args) != 2 or node.kwargs or not all(isinstance(value, fx.Node) for value in node.args):
                raise InputError(f"{lies_in(node)}: only the plain sum of two maps has an octave form")
            return self._tie(node, *node.args)
        if kind == Role.CAT:
            if (*node.args[1:], *node.kwargs.values()) not in ((1,), (-3,)):
                raise InputError(f"{lies_in(node)}: only a concatenation of channels, dim 1, has an octave form")
            if None in (layouts := [self.layouts[value] for value in node.args[0]]):
                raise InputError(f"{lies_in(node)}: concatenates a map with something that is none")
            return tuple(block for layout in layouts for block in layout)
        for value in inputs:  # global pooling, flattening, a linear layer: they read plain tensors
            self._mark(self.layouts[value])
        return None

    def _is_map(self, node: fx.Node) -> bool:
        """Whether a node yields a map of each image, as far as its shape tells."""
        image, shape = next(iter(self.layouts)).meta["shape"], node.meta["shape"]
        return shape is not None and len(shape) == len(image) and shape[0] == 1 and prod(shape[2:]) > 1

    def _tie(self, node: fx.Node, a: fx.Node, b: fx.Node) -> Layout:
        """Layout of an addition: both sides alike, the stem's side adapted on its way in."""
        left, right = self.layouts[a], self.layouts[b]
        if right is None or [c for _, c in left] != [c for _, c in right]:
            self._mark(left)  # blocks that do not line up cannot share a split
            self._mark(right)
            return self._fresh(node, plain=True)
        stems = [self.layouts[node] for node in self.stem if node in self.layouts]
        for plain, other in ((a, b), (b, a)):
            if self.layouts[plain] in stems and self.layouts[other] not in stems:
                self.entrances.append((node, plain))
                return self.layouts[other]
        for (x, _), (y, _) in zip(left, right, strict=True):
            self._classes.union(x, y)
        return left

    def _is_gate(self, node: fx.Node) -> bool:
        """Whether a pooled vector ends in products only, by way of layers that a vector may pass."""
        if prod(node.meta["shape"][2:]) != 1:
            return False
        passes = (Role.CONV, Role.LINEAR, Role.NORM, Role.POINTWISE, Role.FLATTEN)
        kinds = [(user, self.roles[user]) for user in node.users]
        return bool(kinds) and all(kind == Role.MUL or (kind in passes and self._is_gate(user)) for user, kind in kinds)

    def _gated(self, node: fx.Node) -> Layout:
        """Layout of a map times its gate: the map's, which the gate takes over where a layer of its own makes it."""
        gates = [value for value in node.all_input_nodes if value in self.vectors]
        maps = [value for value in node.all_input_nodes if value not in self.vectors and self.layouts[value]]
        if len(gates) != 1 or len(maps) != 1 or prod(gates[0].meta["shape"]) != maps[0].meta["shape"][1]:
            raise InputError(
                f"{lies_in(node)}: no rule for the operation mul unless it is a map times a gate of one number a "
                "channel, pooled from a map"
            )
        layout, gate, way = self.layouts[maps[0]], gates[0], gates
        while self.roles[gate] in (Role.POINTWISE, Role.FLATTEN, Role.NORM) and len(gate.users) == 1:
            gate = gate.all_input_nodes[0]
            way = [*way, gate]
        if self.roles[gate] in (Role.CONV, Role.LINEAR) and len(gate.users) == 1:
            self.layouts.update(dict.fromkeys(way, layout))
        elif self.layouts[gate] != layout:
            self._mark(layout)
            self._mark(self.layouts[gate])
        return layout

    def _named(self, vanilla: tuple[str, ...]) -> set[fx.Node]:
        """The convolutions behind the first that a pattern of `vanilla` names."""
        convs = self.convs[1:]
        for pattern in vanilla:
            if not any(fnmatch(node.target, pattern) for node in convs):
                raise InputError(f"vanilla names {pattern!r}, but no convolution is called so")
        return {node for node in convs if any(fnmatch(node.target, pattern) for pattern in vanilla)}

    def _last_stage(self) -> list[fx.Node]:
        """What is plain in the last stage (Sec. 4.1): convolutions at the smallest map, and what leads to it alone.

        That is a convolution read by nothing but a strided one, or the map that a pooling makes odd there (7 px).
        """
        maps = [node for node in self.convs[1:] if node.meta["shape"][-1] > 1]
        smallest = max((reduction(node) for node in maps), default=1)
        tail = {node for node in maps if reduction(node) == smallest}
        entry = [node for node in maps if node not in tail and (readers := self._readers(node)) and readers <= tail]
        pools = [node for node, kind in self.roles.items() if kind == Role.POOL and reduction(node) >= smallest]
        width = probe_px(self.traced.graph)[1]
        odd = [node for node in pools if node.meta["shape"][-1] % 2 and width % node.meta["shape"][-1] == 0]
        return [*tail, *entry, *odd]

    def _readers(self, node: fx.Node) -> set[fx.Node]:
        """The nodes that read this one's output, norms and activations looked through."""
        found = set()
        for user in node.users:
            found |= self._readers(user) if self.roles[user] in (Role.NORM, Role.POINTWISE) else {user}
        return found
