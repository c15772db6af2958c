"""Octave networks for inference on a CPU.

Besides its convolutions an octave layer costs memory traffic: an up-sampled tensor, two sums, a ReLU, a pooled tensor
for the next layer. Here

- the two paths into the low band are one convolution over [pool(X^H), X^L], whose kernel is the layer's own lower rows;
- so are the two paths into the high band of a strided layer, where both stand at one resolution;
- otherwise up(f(X^L)), the sum, the shortcut, the ReLU and the pooling for the next layer are one pass over the band.
"""

import operator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dynlib import kernels
from dynlib.fusion import Freezer, Pending, affine
from dynlib.graphs import ADD, CAT, CONV, GLOBAL_POOL, MUL, NORM, POINTWISE, POOL, TRANSPOSED
from dynlib.papers.octconv.layers import (
    OctaveInput,
    OctIdentity,
    OctStochasticDepth,
    OnlySize,
    octave_gate,
    octave_mean,
)
from dynlib.papers.octconv.ops import (
    AVERAGE,
    Both,
    Octave,
    OctBatchNorm2d,
    OctConv2d,
    as_octave,
    as_value,
    crosses,
    enlarge,
    octave_add,
    octave_cat,
)
from dynlib.papers.octconv.transposed import OctConvTranspose2d


@dataclass(eq=False)
class Bands:
    """An octave in the new graph."""

    high: fx.Node | None
    low: fx.Node | None
    pooled: dict[str, list[fx.Node]] = field(default_factory=dict)  # what was pooled 0, 1, 2 ... times, written once


class OctaveFreezer(Freezer):
    """Writes octave layers as plain convolutions and merging passes."""

    roles = {  # noqa: RUF012 (a constant)
        OctConv2d: CONV,
        OctBatchNorm2d: NORM,
        Both: POINTWISE,
        OctaveInput: POINTWISE,
        OnlySize: POINTWISE,
        OctIdentity: POOL,
        OctConvTranspose2d: TRANSPOSED,
        octave_add: ADD,
        octave_cat: CAT,
        OctStochasticDepth: POINTWISE,
        octave_mean: GLOBAL_POOL,
        octave_gate: MUL,
    }

    def is_relu(self, node, what):
        """A ReLU, or one for both bands."""
        return super().is_relu(node, what.function if isinstance(what, Both) else what)

    def copy(self, node, what):
        """Operations on octaves, a band at a time."""
        values = [self.write(self.values[n]) for n in node.all_input_nodes]
        if isinstance(what, OctIdentity | OctConvTranspose2d):
            return self._flat(what, values[0])
        if what is octave_cat:
            bands = zip(*(_bands(value) for value in values), strict=True)
            joined = [[x for x in band if x is not None] for band in bands]
            return Bands(*(self.call(torch.cat, band, 1) if band else None for band in joined))
        if not isinstance(values[0], Bands):
            return super().copy(node, what)
        if isinstance(what, OctBatchNorm2d):
            return Bands(*self._norm(what, values[0]))
        if isinstance(what, OctStochasticDepth):  # nothing at inference
            return values[0]
        if what is octave_mean:
            means = [self.call(_mean, x, node.args[1]) for x in _bands(values[0]) if x is not None]
            return self.call(torch.cat, means, 1)
        if what is octave_gate:
            return self._gate(*values)
        if what is octave_add:
            pairs = zip(_bands(values[0]), _bands(values[1]), strict=True)
            return Bands(*(None if a is None else self.call(operator.add, a, b) for a, b in pairs))
        assert isinstance(what, Both)
        function = self.module(what.function) if isinstance(what.function, nn.Module) else what.function
        apply = (None if x is None else self.call(function, x, *what.args, **what.kwargs) for x in _bands(values[0]))
        return Bands(*apply)

    def _norm(self, layer: OctBatchNorm2d, value: Bands) -> list[fx.Node | None]:
        """A batch norm that no convolution took in."""
        maps = zip(*(tensor[:, None, None].split(layer.split) for tensor in affine(layer)), strict=True)
        return [
            None if x is None else self.call(torch.addcmul, self.constant(shift), x, self.constant(scale))
            for x, (scale, shift) in zip(_bands(value), maps, strict=True)
        ]

    def _gate(self, value: Bands, gate: fx.Node) -> Bands:
        """Each band times its part of the gate."""
        sizes = [0 if x is None else x.meta["value"].shape[1] for x in _bands(value)]
        rows = self.call(torch.split, gate, sizes, 1)
        products = (
            None if x is None else self.call(operator.mul, x, self.call(operator.getitem, rows, i))
            for i, x in enumerate(_bands(value))
        )
        return Bands(*products)

    def _flat(self, layer: OctIdentity | OctConvTranspose2d, value: Bands | fx.Node) -> Bands | fx.Node:
        """A layer that stays as it is."""
        result = self.call(self.module(_Flat(layer)), *_bands(value))
        bands = [self.call(operator.getitem, result, i) if channels else None for i, channels in enumerate(layer.out)]
        return Bands(*bands) if layer.out.low else bands[0]

    def write_conv(self, pending: Pending) -> Bands | fx.Node:
        """Write one convolution, octave or plain."""
        layer = pending.conv
        if not isinstance(layer, OctConv2d):
            return super().write_conv(pending)
        x = pending.source if isinstance(pending.source, Bands) else Bands(pending.source, None)
        weight, bias = pending.kernel
        shortcut_h, shortcut_l = _bands(pending.residual) if pending.residual is not None else (None, None)
        (rows_h, rows_l), (bias_h, bias_l) = weight.split(layer.out), bias.split(layer.out)
        tail_h, tail_l = (bias_h, shortcut_h, pending.relu), (bias_l, shortcut_l, pending.relu)
        stride = layer.stride
        if layer.depthwise:
            high = self._chain(layer, x, [("high", stride, rows_h)], *tail_h) if layer.out.high else None
            low = self._chain(layer, x, [("low", stride, rows_l)], *tail_l) if layer.out.low else None
            return Bands(high, low) if layer.out.low else high

        columns = [channels // layer.groups for channels in layer.inp]
        w_hh, w_lh = rows_h.split(columns, dim=1)
        w_hl, w_ll = rows_l.split(columns, dim=1)
        has_high, has_low = layer.inp.high > 0, layer.inp.low > 0
        into_low = [("high", 2 * stride, w_hl)] * (has_high and crosses(layer.high_to_low, layer.inp, layer.out))
        into_low += [("low", stride, w_ll)] * has_low
        into_high = [("high", stride, w_hh)] * has_high
        from_low = has_low and crosses(layer.low_to_high, layer.inp, layer.out)
        low = self._chain(layer, x, into_low, *tail_l) if layer.out.low else None
        if not layer.out.high:
            return Bands(None, low)
        if stride > 1 or not from_low:
            into_high += [("low", stride // 2, w_lh)] * from_low
            high, pooled = self._chain(layer, x, into_high, *tail_h), None
        else:
            high, pooled = self._merge(layer, x, into_high, w_lh, *tail_h, self._is_pooled_next(pending.last))
        if not layer.out.low:
            return high
        return Bands(high, low, {} if pooled is None else {"high": [high, pooled]})

    def _chain(self, layer, x: Bands, parts: list[tuple[str, int, Tensor]], bias, shortcut, relu) -> fx.Node:
        """relu(sum of conv(part) + bias + shortcut): one convolution where all parts stand at one resolution."""
        if layer.downsampling == AVERAGE and len(parts) == 2 and layer.groups == 1:
            factor = max(factor for _, factor, _ in parts) // 2
            parts = [("joined", factor, torch.cat([kernel for _, _, kernel in parts], 1))]
        y = shortcut
        for index, (band, factor, kernel) in enumerate(parts):
            pooled = layer.downsampling == AVERAGE
            source, stride = (self._shrink(x, band, factor), 1) if pooled else (getattr(x, band), factor)
            last = index == len(parts) - 1
            y = self._conv(layer, source, kernel, bias if index == 0 else None, stride, y, relu and last)
        return y

    def _merge(self, layer, x: Bands, direct, w_lh: Tensor, bias, shortcut, relu: bool, pooled: bool):
        """relu(conv(high) + up(conv(low)) + shortcut), and its 2x2 means where the next layer wants them."""
        if not direct:  # alpha_in = 1: there is no high band to add to
            y = self.call(enlarge, self._conv(layer, x.low, w_lh, bias))
            y = y if shortcut is None else self.call(operator.add, y, shortcut)
            return (self.call(F.relu, y) if relu else y), None
        high = self._conv(layer, x.high, direct[0][2], bias)
        raised = self._conv(layer, x.low, w_lh, None)
        if not pooled:
            return self.call(kernels.merge, high, raised, shortcut, relu), None
        both_ = self.call(kernels.merge_and_halve, high, raised, shortcut, relu)
        return self.call(operator.getitem, both_, 0), self.call(operator.getitem, both_, 1)

    def _conv(self, layer, x, kernel, bias, stride=1, other=None, relu=False) -> fx.Node:
        groups = kernel.shape[0] if layer.depthwise else layer.groups
        return self.convolve(x, kernel, bias, (stride,) * 2, layer.padding, layer.dilation, groups, other, relu)

    def _shrink(self, x: Bands, what: str, factor: int) -> fx.Node:
        """A band at 1/factor of its resolution, or ("joined") [pool(high), low] at 1/factor of the low band's."""
        if what == "joined" and what not in x.pooled:
            x.pooled[what] = [self.call(torch.cat, [self._shrink(x, "high", 2), x.low], 1)]
        levels = x.pooled.setdefault(what, []) or x.pooled[what]
        if not levels:
            levels.append(getattr(x, what))
        while 2 ** (len(levels) - 1) < factor:
            levels.append(self.call(F.avg_pool2d, levels[-1], 2))
        return levels[factor.bit_length() - 1]

    def _is_pooled_next(self, node: fx.Node) -> bool:
        """Whether a layer that reads the source node wants its high band at half resolution."""
        layers = [self.source.get_submodule(user.target) for user in node.users if user.op == "call_module"]
        return any(
            isinstance(layer, OctConv2d) and layer.downsampling == AVERAGE and (layer.out.low > 0 or layer.stride > 1)
            for layer in layers
        )


def _bands(value: Bands | fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    return (value.high, value.low) if isinstance(value, Bands) else (value, None)


def _mean(x: Tensor, keepdim: bool) -> Tensor:
    return x.mean((2, 3), keepdim)


class _Flat(nn.Module):
    """A layer between octaves with plain arguments and results, as a graph wants them."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, high: Tensor | None, low: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        return tuple(as_octave(self.layer(as_value(Octave(high, low)))))
