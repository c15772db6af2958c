"""Layers whose channels belong to stages: block-triangular kernels, shortcuts and heads that keep stages apart.

Trained, a kernel is dense and multiplied by its 0/1 mask: full dense time. In evaluation mode only the blocks run, a
convolution a stage, so what is counted is what the method costs.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.errors import InputError

Index = slice | Tensor  # of channels


class Exits(NamedTuple):
    """What a network with stages returns."""

    logits: Tensor  # (N, C), of the exit that each image takes
    taken: Tensor  # (N,), int64: that exit, 0 the first
    exits: Tensor  # (E, N, C), of every exit; NaN where a deployed network did not compute it


def index(channels: Tensor) -> Index:
    """A slice where the channels (int64) are neighbours in order: it copies nothing."""
    first, last = int(channels[0]), int(channels[-1]) + 1
    return slice(first, last) if bool((channels.diff() == 1).all()) else channels


def _at(channels: Index, x: Tensor) -> Index:
    return channels if isinstance(channels, slice) else channels.to(x.device)


class Pieces:
    """Rows and columns of a kernel, stage by stage. A mix-in for layers with a `weight` (C_out, C_in, ...)."""

    rows: list[Tensor]  # outputs that each stage owns
    columns: list[Tensor]  # inputs that each stage reads

    def cut(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Give each stage its part of the kernel, in place; the weights stay."""
        self.rows, self.columns = list(rows), list(columns)
        mask = torch.zeros(self.weight.shape[:2])
        for own, read in zip(rows, columns, strict=True):
            mask[own[:, None], read] = 1
        self._settle(mask, self.rows)
        pairs = zip(rows, columns, strict=True)
        self._blocks = [(index(own), index(read)) for own, read in pairs]

    def _settle(self, mask: Tensor, made: list[Tensor]) -> None:
        """Keep the mask (C_out, C_in) of the kernel, and what brings its blocks' channels, as `made`, into order."""
        mask = mask.view(*mask.shape, *[1] * (self.weight.ndim - 2))
        self.register_buffer("mask", mask.to(self.weight.device), persistent=False)
        order = torch.cat(made).argsort()
        self._order = None if torch.equal(order, torch.arange(len(order))) else order

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        y = torch.cat(parts, 1)
        return y if self._order is None else y[:, self._order.to(y.device)]

    def run(self, x: Tensor, layer) -> Tensor:
        """`layer(x, weight, bias)`: masked in training, else block by block."""
        if self.training or len(self._blocks) == 1:
            return layer(x, self.weight * self.mask, self.bias)
        parts = []
        for own, read in self._blocks:  # stage by stage
            own, read = _at(own, x), _at(read, x)
            bias = None if self.bias is None else self.bias[own]
            block = self.weight[own][:, read]
            parts.append(layer(x[:, read], block, bias))  # eq-s2dnas-piece
        return self._in_order(parts)

    def stage_macs(self, positions: int) -> list[int]:
        """MACs of each stage's part, applied at `positions` pixels."""
        each = self.weight[0, 0].numel() * positions
        pairs = zip(self.rows, self.columns, strict=True)
        return [each * len(o) * len(i) for o, i in pairs]  # eq-s2dnas-cost


class PieceConv2d(Pieces, nn.Conv2d):
    """A convolution with the kernel of `conv`, block-triangular: Y_j = sum of W_ji X_i over what j reads."""

    def __init__(self, conv: nn.Conv2d):
        size = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        super().__init__(*size, conv.groups, bias=False, padding_mode=conv.padding_mode, device="meta")
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        return self.run(x, self._conv_forward)


class Block(NamedTuple):
    """A part of a grouped kernel that is a convolution of its own: channels (indices) in order, groups."""

    own: Tensor
    read: Tensor
    groups: int


class PieceGroups(PieceConv2d):
    """A convolution in groups with the kernel of `conv`, block-triangular in each group that has several owners."""

    def cut(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Give each stage its part of every group, in place; the weights stay."""
        self.blocks = [self._of_stage(own, read) for own, read in zip(rows, columns, strict=True)]
        self.columns = [torch.cat([block.read for block in blocks]).unique() for blocks in self.blocks]
        mask, every = torch.zeros(self.weight.shape[:2]), list(chain(*self.blocks))
        for block in every:
            for own, read in zip(block.own.chunk(block.groups), block.read.chunk(block.groups), strict=True):
                mask[own[:, None], read % self.weight.shape[1]] = 1
        self._settle(mask, [block.own for block in every])

    def _of_stage(self, own: Tensor, read: Tensor) -> list[Block]:
        """What a stage computes: whole groups together, and each group of which it has a part."""
        found, sides = [], (self.out_channels // self.groups, self.weight.shape[1])
        for group in range(self.groups):
            out, inp = (c[c // side == group] for c, side in zip((own, read), sides, strict=True))
            if not len(out):
                continue
            whole = (len(out), len(inp)) == sides
            if whole and found and found[-1].groups:
                last = found.pop()
                found.append(Block(torch.cat([last.own, out]), torch.cat([last.read, inp]), last.groups + 1))
            else:
                found.append(Block(out, inp, int(whole)))
        return [block._replace(groups=max(block.groups, 1)) for block in found]

    def kernel(self, block: Block) -> Tensor:
        """The weights of a block."""
        local = block.read[: len(block.read) // block.groups] % self.weight.shape[1]
        return self.weight[_at(index(block.own), self.weight)][:, _at(index(local), self.weight)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        if self.training or len(self.blocks) == 1 or self.padding_mode != "zeros":
            return self._conv_forward(x, self.weight * self.mask, self.bias)
        parts = []
        for block in chain(*self.blocks):
            own, read = _at(index(block.own), x), _at(index(block.read), x)
            bias = None if self.bias is None else self.bias[own]
            how = (self.stride, self.padding, self.dilation, block.groups)
            parts.append(F.conv2d(x[:, read], self.kernel(block), bias, *how))  # eq-s2dnas-piece
        return self._in_order(parts)

    def stage_macs(self, positions: int) -> list[int]:
        """MACs of each stage's part, applied at `positions` pixels."""
        each = self.weight[0, 0].numel() * positions
        return [sum(each * len(b.own) * len(b.read) // b.groups for b in blocks) for blocks in self.blocks]


class PieceLinear(Pieces, nn.Linear):
    """A hidden linear layer, block-triangular like `PieceConv2d`."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in) -> (N, C_out)."""
        return self.run(x, F.linear)


def in_pieces(layer: nn.Conv2d | nn.Linear) -> Pieces:
    """A layer like this one, with its kernel, block-triangular."""
    if isinstance(layer, nn.Linear):
        return PieceLinear(layer)
    return (PieceConv2d if layer.groups == 1 else PieceGroups)(layer)


class PieceShortcut(nn.Module):
    """The parameter-free shortcut, stage by stage: each stage's channels first, then its zeros; a surplus is dropped.

    Of a shortcut that has a share of its zeros in front of the channels, so has each stage.

    Padding the tensor as a whole would move channels across the cuts and let a late stage leak into an early one.
    """

    def __init__(self, stride: int, ahead: float = 0.0):
        super().__init__()
        self.stride, self.ahead = stride, ahead

    def cut(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Give each stage its channels: `rows` are its outputs, `columns` its inputs."""
        source = torch.full((sum(map(len, rows)),), sum(map(len, columns)))  # the zero channel
        for own, read in zip(rows, columns, strict=True):
            kept, before = min(len(own), len(read)), self.before(len(read), len(own))
            source[own[before : before + kept]] = read[:kept]
        self.register_buffer("source", source, persistent=False)

    def before(self, read: int, own: int) -> int:
        """How many zeros a stage has in front of its channels."""
        return int(self.ahead * max(own - read, 0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounding up."""
        near = x[:, :, :: self.stride, :: self.stride]
        return F.pad(near, (0, 0, 0, 0, 0, 1)).index_select(1, self.source.to(x.device))


class PiecePick(nn.Module):
    """Channels in another order, or some of them, stage by stage: a channel shuffle, or one of several equal parts.

    As a whole it would hand channels of a late stage to an early one, and leave some stage none.
    """

    def __init__(self, pick: Callable[[Tensor], Tensor]):
        super().__init__()
        self.pick = pick  # of the channels of one stage

    def cut(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Give each stage its channels: `rows` are its outputs, `columns` its inputs."""
        source = torch.empty(sum(map(len, rows)), dtype=torch.long)
        for own, read in zip(rows, columns, strict=True):
            source[own] = self.pick(read)
        self.register_buffer("source", source, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same or fewer channels."""
        return x.index_select(1, self.source.to(x.device))


def shuffled(groups: int, channels: Tensor) -> Tensor:
    """The first of each group, then the second of each: ShuffleNet's (Zhang et al., CVPR 2018)."""
    return channels.view(groups, -1).T.flatten()


def part(index: int, count: int, channels: Tensor) -> Tensor:
    """One of `count` equal parts."""
    return channels.view(count, -1)[index]


class Heads(nn.ModuleList):
    """One linear classifier a stage, each starting as the network's own on the features of the stages up to its own.

    The features that a head does not read have weights without effect.
    """

    def __init__(self, linear: nn.Linear, stages: int):
        super().__init__()
        for _ in range(stages):
            head = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
            for name, tensor in linear.named_parameters():
                head.register_parameter(name, nn.Parameter(tensor.detach().clone(), tensor.requires_grad))
            self.append(head)

    def cut(self, columns: Sequence[Tensor]) -> None:
        """Give each head the features (indices) that it reads."""
        self.columns = list(columns)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, F) -> logits (E, N, C)."""
        read = [_at(index(channels), x) for channels in self.columns]
        return torch.stack(
            [F.linear(x[:, at], head.weight[:, at], head.bias) for head, at in zip(self, read, strict=True)]
        )

    def stage_macs(self) -> list[int]:
        """Multiply-accumulates of each head."""
        return [len(read) * head.out_features for head, read in zip(self, self.columns, strict=True)]


class ExitRule(nn.Module):
    """Each image takes the first exit whose largest probability is at least that exit's threshold, else the last.

    `thresholds` are one for all `exits`, or one each before the last. Raises InputError for another number.
    """

    def __init__(self, thresholds: Sequence[float], exits: int):
        super().__init__()
        if len(thresholds) not in (1, exits - 1):
            raise InputError(f"exit_thresholds is {thresholds}; {exits} exits need 1 number or {exits - 1}")
        each = [*thresholds] * (exits - 1) if len(thresholds) == 1 else thresholds
        self.register_buffer("thresholds", torch.tensor(each, dtype=torch.float32))  # (E - 1,)

    def forward(self, exits: Tensor) -> Exits:
        """Logits (E, N, C) -> the choice."""
        confidence = exits[:-1].softmax(-1).amax(-1)  # (E - 1, N)
        sure = confidence >= self.thresholds[:, None]
        last = sure.new_ones(1, exits.shape[1])
        stops = torch.cat([sure, last]).to(torch.uint8)
        taken = stops.argmax(0)  # the first of equal ones: eq-s2dnas-exit
        rows = torch.arange(exits.shape[1], device=exits.device)
        return Exits(exits[taken, rows], taken, exits)
