"""The octave operator and the layers of an octave network.

    symbol          name                 meaning
    X^H, X^L        x.high, x.low        features at full and at half resolution
    alpha           Config.alpha         share of the channels that is low
    W^{H->H} ...    w_hh, w_hl, w_lh, w_ll   the four blocks of the kernel; `hl` reads high and writes low
    p, i            -                    position in a map, offset in a kernel

A layer keeps its kernel as one tensor of the vanilla shape, rows and columns in octave order (high channels first), so
an octave network has exactly the vanilla network's parameters, under the same names.

A clip (N, C, T, H, W) has an octave too, of space alone: its low band has all T frames at half of H and W (Sec. 3.3 of
the paper says only "3D"; that time is not halved follows from its costs). Functions and layers take images and clips.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.backbones.thin import is_depthwise
from dynlib.cost import Costed
from dynlib.errors import InputError

AVERAGE, STRIDED = "average", "strided"


class Octave(NamedTuple):
    """Features in two frequency bands; a band without channels is None."""

    high: Tensor | None  # (N, c_high, H, W), of a clip (N, c_high, T, H, W)
    low: Tensor | None  # (N, c_low, H/2, W/2), of a clip (N, c_low, T, H/2, W/2)


class Split(NamedTuple):
    """How many channels of a tensor are high and how many low."""

    high: int
    low: int


def split_channels(channels: int, alpha: float) -> Split:
    """The channel split of one tensor, c_low = floor(alpha c) (Sec. 3.2).

    The only place that computes it.
    """
    low = int(alpha * channels)  # eq-octave
    return Split(channels - low, low)


def macs_ratio(alpha_in: float, alpha_out: float) -> float:
    """MACs of a stride-1 layer as a share of the vanilla layer's (Sec. 3.2)."""
    a, b = alpha_in, alpha_out
    return 1 - 0.75 * (a + b - a * b)  # eq-octconv-cost


def memory_ratio(alpha: float) -> float:
    """Numbers in an octave as a share of the plain tensor's (Sec. 3.2)."""
    return 1 - 0.75 * alpha  # eq-octconv-cost


def crosses(switch: bool, inp: Split, out: Split) -> bool:
    """Whether a path between the bands runs in a layer: a switch of Table 3 binds where both bands come in and go out.

    The first and the last octave layer keep theirs: it is the only way into the low band, and the only way out of it.
    """
    return switch or 0 in (*inp, *out)


def shrink(x: Tensor, factor: int) -> Tensor:
    """Average pooling of an image's or a clip's space: (..., H, W) to (..., H/factor, W/factor)."""
    return F.avg_pool2d(x, factor) if x.dim() == 4 else F.avg_pool3d(x, (1, factor, factor))


def enlarge(x: Tensor, factor: int = 2) -> Tensor:
    """Nearest neighbour up-sampling of an image's or a clip's space: (..., H, W) to (..., factor H, factor W)."""
    scale = [1.0] * (x.dim() - 4) + [float(factor)] * 2
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def octave_conv(
    x: Octave,
    weight: Tensor,
    bias: Tensor | None,
    out: Split,
    *,
    stride: int = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    time_stride: int = 1,
    downsampling: str = AVERAGE,
    high_to_low: bool = True,
    low_to_high: bool = True,
) -> Octave:
    """Octave convolution (Eq. 2 and 3, Sec. 3.3).

    `weight` is (c_out, c_in / groups, K, K) in octave order. A path that has to
    lose resolution pools first and then convolves at stride 1
    (`downsampling="average"`), or takes a strided convolution (`"strided"`,
    Table 3); one that has to gain resolution convolves first and up-samples
    after, the cheap order. The bias is added once a band. A path switched off
    (Table 3) stays in layers that lack a band on either side, see `crosses`. Of
    clips the weight is (c_out, c_in / groups, K_t, K, K); `stride` is that of
    space, and `time_stride` is left to the convolutions.
    """
    high, low = x
    of_images = weight.dim() == 4
    convolve, time = (F.conv2d, ()) if of_images else (F.conv3d, (time_stride,))

    def path(source: Tensor, kernel: Tensor, factor: int, offset: Tensor | None):
        step = 1
        if factor > 1 and downsampling == AVERAGE:
            source = shrink(source, factor)
        elif factor > 1:
            step = factor
        steps = (*time, step, step)
        return convolve(source, kernel, offset, steps, padding, dilation, groups)

    inp = Split(*(0 if band is None else band.shape[1] for band in x))
    in_high, in_low = inp
    bias_h, bias_l = (None, None) if bias is None else bias.split(out)
    rest = stride  # what the paths from the high band still have to lose
    if stride > 1 and in_high and downsampling == AVERAGE:
        high, rest = shrink(high, stride), 1  # once for both, as authors do
    if 1 < groups == in_high + in_low == sum(out):  # depthwise: bands do not mix
        kernels = weight.split(out)
        groups = out.high
        y_high = path(high, kernels[0], rest, bias_h) if out.high else None
        groups = out.low
        y_low = path(low, kernels[1], stride, bias_l) if out.low else None
        return Octave(y_high, y_low)

    rows_h, rows_l = weight.split(out)
    columns = (in_high // groups, in_low // groups)
    w_hh, w_lh = rows_h.split(columns, dim=1)
    w_hl, w_ll = rows_l.split(columns, dim=1)
    y_high = y_low = None
    if out.high and in_high:
        y_high = path(high, w_hh, rest, bias_h)
    if out.high and in_low and crosses(low_to_high, inp, out):
        offset = bias_h if y_high is None else None
        factor = max(stride // 2, 1)  # X^L has lost one halving already
        raised = path(low, w_lh, factor, offset)
        raised = enlarge(raised) if stride == 1 else raised
        y_high = raised if y_high is None else y_high + raised  # eq-octconv, 1
    if out.low and in_low:
        y_low = path(low, w_ll, stride, bias_l)
    if out.low and in_high and crosses(high_to_low, inp, out):
        offset = bias_l if y_low is None else None
        lowered = path(high, w_hl, 2 * rest, offset)
        y_low = lowered if y_low is None else y_low + lowered  # eq-octconv, 2
    return Octave(y_high, y_low)


def as_octave(x: Tensor | Octave) -> Octave:
    """A plain tensor is an octave without a low band."""
    return x if isinstance(x, Octave) else Octave(x, None)


def as_value(x: Octave) -> Tensor | Octave:
    """The plain tensor where there is no low band."""
    return x.high if x.low is None else x


def keeps_grid(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether a map keeps its size but for the stride, 1, 2 or 4 on both sides: what has an octave form."""
    same = tuple(d * (k - 1) / 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    keeps_size = all(pad.is_integer() for pad in same) if conv.padding == "same" else conv.padding[-2:] == same[-2:]
    return keeps_size and conv.padding_mode == "zeros" and conv.stride[-2:] in ((1, 1), (2, 2), (4, 4))


class OctConv2d(Costed, nn.Module):
    """Octave form of a convolution, holding its weight; reads and writes a tensor or an `Octave` as its splits say.

    Of a Conv3d too: the octave is that of space, whatever the kernel, stride and padding along time.
    """

    def __init__(
        self,
        conv: nn.Conv2d | nn.Conv3d,
        inp: Split,
        out: Split,
        *,
        name: str,
        downsampling: str = AVERAGE,
        high_to_low: bool = True,
        low_to_high: bool = True,
    ):
        super().__init__()
        assert (sum(inp), sum(out)) == (conv.in_channels, conv.out_channels)
        if not keeps_grid(conv):
            raise InputError(
                f"{name}: kernel {conv.kernel_size}, padding {conv.padding} of {conv.padding_mode}, "
                f"stride {conv.stride}; an octave convolution needs zero padding that keeps the size, "
                "and stride 1, 2 or 4 on both sides"
            )
        self.depthwise = is_depthwise(conv)
        if self.depthwise and inp != out:
            raise InputError(f"{name}: a depthwise convolution needs equal splits, got {tuple(inp)} and {tuple(out)}")
        odd = [c for c in (*inp, *out) if c % conv.groups]
        if odd and not self.depthwise:
            raise InputError(
                f"{name}: {conv.groups} groups do not divide {odd[0]} channels of a band; choose alpha so that they do"
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.inp, self.out = inp, out
        self.kernel_size, self.dilation = conv.kernel_size, conv.dilation
        same = (d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        self.padding = tuple(same) if conv.padding == "same" else conv.padding
        self.stride, self.groups = conv.stride[-1], conv.groups
        self.time_stride = conv.stride[0] if len(conv.stride) == 3 else 1
        self.downsampling, self.high_to_low, self.low_to_high = downsampling, high_to_low, low_to_high

    def forward(self, x: Tensor | Octave) -> Tensor | Octave:
        """(N, c_in, [T,] H, W) or its octave to (N, c_out, [T',] H/stride, W/stride) or its octave."""
        return as_value(
            octave_conv(
                as_octave(x),
                self.weight,
                self.bias,
                self.out,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                time_stride=self.time_stride,
                downsampling=self.downsampling,
                high_to_low=self.high_to_low,
                low_to_high=self.low_to_high,
            )
        )

    def macs(self, inputs: tuple, output: tuple | Octave) -> int:
        """Multiply-accumulates for one image (Sec. 3.2).

        `output` is its shape (C, H, W), or the octave of its bands' shapes.
        """
        kernel = prod(self.kernel_size)
        if isinstance(output, Octave) and output.high is None:
            half = prod(output.low[1:])
            full = 4 * half
        else:
            *time, height, width = as_octave(output).high[1:]
            full = prod(time) * height * width
            half = prod(time) * (height // 2) * (width // 2)
        if self.depthwise:
            return kernel * (self.out.high * full + self.out.low * half)  # eq-octconv-depthwise
        raised = half if self.stride == 1 else full  # LH: at its source
        goes_up = crosses(self.low_to_high, self.inp, self.out)
        goes_down = crosses(self.high_to_low, self.inp, self.out)
        hh = self.out.high * self.inp.high * full
        ll = self.out.low * self.inp.low * half
        lh = self.out.high * self.inp.low * raised if goes_up else 0
        hl = self.out.low * self.inp.high * half if goes_down else 0
        return kernel * (hh + lh + hl + ll) // self.groups  # eq-conv-macs

    def extra_repr(self) -> str:
        """The two splits, as the reader of a printed network wants them."""
        return f"{tuple(self.inp)} -> {tuple(self.out)}, kernel_size={self.kernel_size}, stride={self.stride}"


class OctBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with its own statistics and affine parameters in each band; holds those of a vanilla batch norm."""

    def __init__(self, norm: nn.BatchNorm2d | nn.BatchNorm3d, split: Split):
        like = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        super().__init__(*like, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training, self.split = norm.training, split

    def forward(self, x: Octave) -> Octave:
        """Normalises (N, c_high, H, W) and (N, c_low, H/2, W/2) separately; shapes stay."""
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        state = [self.running_mean, self.running_var, self.weight, self.bias]
        bands = zip(*([None, None] if tensor is None else tensor.split(self.split) for tensor in state), strict=True)
        batch = self.training or not self.track_running_stats
        return Octave(
            *(
                None if band is None else F.batch_norm(band, mean, var, weight, bias, batch, momentum or 0.0, self.eps)
                for band, (mean, var, weight, bias) in zip(x, bands, strict=True)
            )
        )


class Both(nn.Module):
    """A module or function without parameters applied to each band: activation, pooling, dropout."""

    def __init__(self, function: Callable, *args, **kwargs):
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x: Tensor | Octave) -> Tensor | Octave:
        """Shapes as the function's, in each band."""
        if not isinstance(x, Octave):
            return self.function(x, *self.args, **self.kwargs)
        return Octave(*(None if band is None else self.function(band, *self.args, **self.kwargs) for band in x))


def octave_add(a: Octave, b: Octave) -> Octave:
    """Residual addition a band at a time; both sides have the same split, the conversion saw to that."""
    return Octave(*(None if x is None else x + y for x, y in zip(a, b, strict=True)))


def octave_cat(values: list[Tensor | Octave], dim: int = 1) -> Octave:
    """Concatenation a band at a time: the splits are concatenated too."""
    bands = zip(*(as_octave(value) for value in values), strict=True)
    joined = [[x for x in band if x is not None] for band in bands]
    return Octave(*(torch.cat(band, dim) if band else None for band in joined))
