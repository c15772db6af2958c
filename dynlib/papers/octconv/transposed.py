"""Octave form of a transposed convolution, for decoders and U-Nets: an extension of ours, not in the paper.

It follows the paper's two rules. A path that has to lose resolution pools first, one that has to gain it convolves
first, so three of the four paths run at a quarter of the cost. Both bands grow by the stride alike.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.cost import Costed
from dynlib.errors import InputError
from dynlib.papers.octconv.ops import AVERAGE, Octave, Split, as_octave, as_value, crosses, enlarge, shrink


class OctConvTranspose2d(Costed, nn.Module):
    """Octave form of a transposed convolution, holding its weight (c_in, c_out, K, K), both sides in octave order."""

    def __init__(
        self,
        conv: nn.ConvTranspose2d,
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
        numbers = (conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation)
        grows = all(d * (k - 1) + 1 - 2 * p + o == s for k, s, p, o, d in zip(*numbers, strict=True))
        if not isinstance(conv, nn.ConvTranspose2d) or conv.groups > 1 or not grows:
            raise InputError(
                f"{name}: {type(conv).__name__} with kernel {conv.kernel_size}, stride {conv.stride}, padding "
                f"{conv.padding}, {conv.groups} groups; a transposed convolution has an octave form in two dimensions, "
                "in one group, where a map grows by exactly the stride"
            )
        self.weight, self.bias = conv.weight, conv.bias
        self.inp, self.out = inp, out
        self.geometry = (conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)
        self.average = downsampling == AVERAGE
        self.high_to_low, self.low_to_high = crosses(high_to_low, inp, out), crosses(low_to_high, inp, out)

    def forward(self, x: Tensor | Octave) -> Tensor | Octave:
        """(N, c_in, H, W) or its octave to (N, c_out, H * stride, W * stride) or its octave."""
        high, low = as_octave(x)
        rows_h, rows_l = self.weight.split(self.inp)
        bias_h, bias_l = (None, None) if self.bias is None else self.bias.split(self.out)

        def path(source: Tensor, kernel: Tensor, offset: Tensor | None) -> Tensor:
            stride, padding, extra, groups, dilation = self.geometry
            return F.conv_transpose2d(source, kernel, offset, stride, padding, extra, groups, dilation)

        y_high = y_low = None
        if self.out.high and self.inp.high:
            y_high = path(high, rows_h[:, : self.out.high], bias_h)
        if self.out.high and self.inp.low and self.low_to_high:
            raised = enlarge(path(low, rows_l[:, : self.out.high], bias_h if y_high is None else None))
            y_high = raised if y_high is None else y_high + raised
        if self.out.low and self.inp.low:
            y_low = path(low, rows_l[:, self.out.high :], bias_l)
        if self.out.low and self.inp.high and self.high_to_low:
            near = shrink(high, 2) if self.average else high[..., ::2, ::2]
            lowered = path(near, rows_h[:, self.out.high :], bias_l if y_low is None else None)
            y_low = lowered if y_low is None else y_low + lowered
        return as_value(Octave(y_high, y_low))

    def macs(self, inputs: tuple, output: tuple | Octave) -> int:
        """Multiply-accumulates for one image: each weight once an input pixel of its path."""
        high, low = as_octave(inputs[0])
        half = low[1] * low[2] if high is None else (high[1] // 2) * (high[2] // 2)
        full = 4 * half if high is None else high[1] * high[2]
        crossing = self.inp.low * self.out.high * self.low_to_high + self.inp.high * self.out.low * self.high_to_low
        products = self.inp.high * self.out.high * full + (self.inp.low * self.out.low + crossing) * half
        return products * self.weight.shape[2] * self.weight.shape[3]

    def extra_repr(self) -> str:
        """The two splits, as the reader of a printed network wants them."""
        return f"{tuple(self.inp)} -> {tuple(self.out)}, kernel_size={tuple(self.weight.shape[2:])}"
