"""Layers whose channels belong to stages: block-triangular kernels, shortcuts and heads that keep stages apart.

Trained, a kernel is dense and multiplied by its 0/1 mask: full dense time. In evaluation mode only the blocks run, a
convolution a stage, so what is counted is what the method costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Index = slice | Tensor  # of channels


class Exits(NamedTuple):
    """What a network with stages returns."""

    logits: Tensor  # (N, C), of the exit that each image takes
    taken: Tensor  # (N,), int64: that exit, 0 the first
    exits: Tensor  # (E, N, C), of every exit; NaN where a deployed network did not compute it


def index(channels: Tensor) -> Index:
    """A slice where the channels (int64, ascending) are neighbours: it copies nothing."""
    first, last = int(channels[0]), int(channels[-1]) + 1
    return slice(first, last) if last - first == len(channels) else channels


def _at(channels: Index, x: Tensor) -> Index:
    return channels if isinstance(channels, slice) else channels.to(x.device)


class Pieces:
    """Rows and columns of a kernel, stage by stage. A mix-in for layers with a `weight` (C_out, C_in, ...)."""

    rows: list[Tensor]  # outputs that each stage owns
    columns: list[Tensor]  # inputs that each stage reads

    def cut(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Give each stage its part of the kernel, in place; the weights stay."""
        self.rows, self.columns = list(rows), list(columns)
        device = self.weight.device
        mask = torch.zeros(self.weight.shape[:2])
        for own, read in zip(rows, columns, strict=True):
            mask[own[:, None], read] = 1
        mask = mask.view(*mask.shape, *[1] * (self.weight.ndim - 2)).to(device)
        self.register_buffer("mask", mask, persistent=False)
        order = torch.cat(list(rows)).argsort()
        sorted_already = torch.equal(order, torch.arange(len(order)))
        self._order = None if sorted_already else order
        pairs = zip(rows, columns, strict=True)
        self._blocks = [(index(own), index(read)) for own, read in pairs]

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
        y = torch.cat(parts, 1)
        return y if self._order is None else y[:, self._order.to(y.device)]

    def stage_macs(self, positions: int) -> list[int]:
        """MACs of each stage's part, applied at `positions` pixels."""
        each = self.weight[0, 0].numel() * positions
        pairs = zip(self.rows, self.columns, strict=True)
        return [each * len(o) * len(i) for o, i in pairs]  # eq-s2dnas-cost


class PieceConv2d(Pieces, nn.Conv2d):
    """A convolution with the kernel of `conv`, block-triangular: Y_j = sum of W_ji X_i over what j reads."""

    def __init__(self, conv: nn.Conv2d):
        size = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        super().__init__(*size, bias=False, padding_mode=conv.padding_mode, device="meta")
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W')."""
        return self.run(x, self._conv_forward)


class PieceLinear(Pieces, nn.Linear):
    """A hidden linear layer, block-triangular like `PieceConv2d`."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in) -> (N, C_out)."""
        return self.run(x, F.linear)


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
    """Each image takes the first exit whose largest probability is at least that exit's threshold, else the last."""

    def __init__(self, thresholds: Sequence[float]):
        super().__init__()
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))  # (E - 1,)

    def forward(self, exits: Tensor) -> Exits:
        """Logits (E, N, C) -> the choice."""
        confidence = exits[:-1].softmax(-1).amax(-1)  # (E - 1, N)
        sure = confidence >= self.thresholds[:, None]
        last = sure.new_ones(1, exits.shape[1])
        stops = torch.cat([sure, last]).to(torch.uint8)
        taken = stops.argmax(0)  # the first of equal ones: eq-s2dnas-exit
        rows = torch.arange(exits.shape[1], device=exits.device)
        return Exits(exits[taken, rows], taken, exits)
