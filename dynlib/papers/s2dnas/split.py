"""A network with stages written as one ordinary network a stage.

A stage reads the image and those pieces of earlier stages that the reuse matrix allows, and returns its logits with the
pieces that later stages read. Nothing is masked: each kernel is its block, so what is counted is what runs.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dynlib.ops import PadShortcut, keep_channels
from dynlib.papers.s2dnas import layers
from dynlib.roles import Role, find_role

Piece = tuple[fx.Node, int]  # what one stage owns of a node's output


@dataclass(frozen=True)
class Stage:
    """One stage as a network of its own."""

    network: fx.GraphModule  # called with its inputs; returns (logits, *outputs)
    inputs: tuple[Piece, ...]  # the image and what it reads of earlier stages
    outputs: tuple[Piece, ...]  # what later stages read


def split(model: fx.GraphModule) -> list[Stage]:
    """The stages of a network from `convert` as plain networks, in evaluation mode, with copies of the weights."""
    (heads,) = (layer for layer in model.modules() if isinstance(layer, layers.Heads))
    writers = [_Writer(model, stage) for stage in range(len(heads))]
    wanted = {piece for writer in writers for piece in writer.inputs}
    own = [[p for p in writer.pieces if p[1] == writer.stage and p not in writer.inputs] for writer in writers]
    return [writer.finish(tuple(p for p in pieces if p in wanted)) for writer, pieces in zip(writers, own, strict=True)]


class _Writer:
    """Writes the graph of one stage."""

    def __init__(self, model: fx.GraphModule, stage: int):
        self.model, self.stage = model, stage
        self.graph, self.holder = fx.Graph(), nn.Module()
        self._joined: dict[tuple, fx.Node] = {}
        self.inputs = self._reads()
        self.pieces = {(of, owner): self.graph.placeholder(f"{of.name}_{owner}") for of, owner in self.inputs}
        for node in model.graph.nodes:
            self._step(node)

    def finish(self, outputs: tuple[Piece, ...]) -> Stage:
        """The stage, returning its logits and the pieces that later ones read."""
        self.graph.output((self.logits, *(self.pieces[piece] for piece in outputs)))
        self.graph.lint()
        return Stage(fx.GraphModule(self.holder, self.graph).eval(), tuple(self.inputs), outputs)

    def _columns(self, node: fx.Node) -> Tensor | None:
        """Channels that this stage reads of a mixing layer's input; None for other nodes."""
        layer = self.model.get_submodule(node.target) if node.op == "call_module" else None
        return layer.columns[self.stage] if isinstance(layer, layers.Heads | layers.Pieces) else None

    def _sources(self, node: fx.Node) -> list[Piece]:
        """The pieces of its input that a mixing layer reads, in order."""
        source = node.all_input_nodes[0]
        return [(source, i) for i in source.meta["owners"][self._columns(node)].unique().tolist()]

    def _reads(self) -> list[Piece]:
        """Every piece of the image or of earlier stages that this stage reads, each once, in order."""
        mixing = [node for node in self.model.graph.nodes if self._columns(node) is not None]
        pieces = dict.fromkeys(piece for node in mixing for piece in self._sources(node))
        image = next(iter(self.model.graph.nodes))
        earlier = [piece for piece in pieces if piece[1] < self.stage and piece[0] is not image]
        needs_image = self.stage == 0 or (image, 0) in pieces
        return [(image, 0)] * needs_image + earlier

    def _own(self, node: fx.Node) -> Tensor:
        """Channels of a node's output that this stage owns."""
        return (node.meta["owners"] == self.stage).nonzero().flatten()

    def _step(self, node: fx.Node) -> None:
        """Write this stage's piece of one node, where it has one."""
        kind = find_role(self.model, node)
        layer = self.model.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, layers.Heads):
            self.logits = self._call(_linear(layer[self.stage], self._read(node)), self._gather(node))
            return
        if kind == Role.INPUT or "owners" not in node.meta or not len(own := self._own(node)):
            return
        if isinstance(layer, layers.PieceGroups):
            new = self._call(GroupBlocks(layer, self.stage, self._gathered(node)), self._gather(node))
        elif isinstance(layer, layers.PieceConv2d):
            new = self._call(_conv(layer, _part(layer.weight, own, self._read(node)), own), self._gather(node))
        elif isinstance(layer, layers.PieceLinear):
            new = self._call(_linear(layer, self._read(node), own), self._gather(node))
        elif kind == Role.CAT:
            parts = [self.pieces[value, self.stage] for value in node.args[0]]
            new = self.graph.call_function(torch.cat, (parts, 1))
        else:
            new = self._copy(node, kind, layer, own)
        self.pieces[node, self.stage] = new

    def _copy(self, node: fx.Node, kind: str, layer: nn.Module | None, own: Tensor) -> fx.Node:
        """Write what keeps channels apart: the same operation on this stage's channels."""
        source = self.pieces.get((node.all_input_nodes[0], self.stage))
        if isinstance(layer, layers.PieceShortcut):
            read = len(self._own(node.all_input_nodes[0]))
            return self._call(PadShortcut(read, len(own), layer.stride, layer.before(read, len(own))), source)
        if isinstance(layer, layers.PiecePick):
            pick = layers.PiecePick(layer.pick)
            pick.cut([torch.arange(len(own))], [torch.arange(len(self._own(node.all_input_nodes[0])))])
            return self._call(pick, source)
        if isinstance(layer, nn.Conv2d):
            groups = len(own) * layer.groups // layer.out_channels
            return self._call(_conv(layer, _part(layer.weight, own), own, groups), source)
        if kind == Role.NORM:
            return self._call(_norm(layer, own), source)
        if kind == Role.FLATTEN:
            return self.graph.call_function(torch.flatten, (source, 1))
        if node.op == "call_module":
            return self._call(copy.deepcopy(layer), source)
        arguments = fx.node.map_arg((node.args, node.kwargs), lambda value: self.pieces[value, self.stage])
        return self.graph.create_node(node.op, node.target, *arguments)

    def _read(self, node: fx.Node) -> Tensor:
        """The channels that a mixing layer reads, in the order in which `_gather` lines them up."""
        owners, columns = node.all_input_nodes[0].meta["owners"], self._columns(node)
        return columns[owners[columns].argsort(stable=True)]

    def _gathered(self, node: fx.Node) -> Tensor:
        """All channels of what `_gather` lines up, read or not."""
        owners = node.all_input_nodes[0].meta["owners"]
        return torch.cat([(owners == stage).nonzero().flatten() for _, stage in self._sources(node)])

    def _gather(self, node: fx.Node) -> fx.Node:
        """The pieces that a mixing layer reads as one tensor; two readers of the same share it."""
        sources = tuple(self._sources(node))
        if len(sources) == 1:
            return self.pieces[sources[0]]
        if sources not in self._joined:
            self._joined[sources] = self.graph.call_function(torch.cat, ([self.pieces[p] for p in sources], 1))
        return self._joined[sources]

    def _call(self, layer: nn.Module, source: fx.Node) -> fx.Node:
        name = f"layer_{len(self.holder._modules)}"
        self.holder.add_module(name, layer.eval())
        return self.graph.call_module(name, (source,))


def _part(tensor: Tensor | None, *at: Tensor) -> nn.Parameter | None:
    """The rows and columns of a parameter, those that are given, copied."""
    if tensor is None:
        return None
    part = tensor.detach() if at else tensor.detach().clone()
    for dim, channels in enumerate(at):
        part = part.index_select(dim, channels.to(part.device))
    return nn.Parameter(part, requires_grad=False)


def _conv(layer: nn.Conv2d, weight: nn.Parameter, own: Tensor, groups: int = 1) -> nn.Conv2d:
    """A convolution like the layer with a part of its kernel, for these of its outputs."""
    size = (weight.shape[1] * groups, len(own), layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    new = nn.Conv2d(*size, groups, bias=False, padding_mode=layer.padding_mode, device="meta")
    new.weight, new.bias = weight, _part(layer.bias, own)
    return new


class GroupBlocks(nn.Module):
    """A stage's part of a grouped convolution, a convolution a block; it reads `read`, channels in this order."""

    def __init__(self, layer: layers.PieceGroups, stage: int, read: Tensor):
        super().__init__()
        place = torch.empty(layer.in_channels, dtype=torch.long)
        place[read] = torch.arange(len(read))
        self.convs, self.reads = nn.ModuleList(), []
        for block in layer.blocks[stage]:
            self.convs.append(_conv(layer, _part(layer.kernel(block)), block.own, block.groups))
            self.reads.append(layers.index(place[block.read]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_read, H, W) -> (N, C_own, H', W')."""
        parts = [conv(x[:, read]) for conv, read in zip(self.convs, self.reads, strict=True)]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _linear(layer: nn.Linear, read: Tensor, own: Tensor | None = None) -> nn.Linear:
    own = torch.arange(layer.out_features) if own is None else own
    new = nn.Linear(len(read), len(own), bias=False, device="meta")
    new.weight, new.bias = _part(layer.weight, own, read), _part(layer.bias, own)
    return new


def _norm(norm: nn.Module, own: Tensor) -> nn.Module:
    new = copy.deepcopy(norm)
    keep_channels(new, own)
    return new
