"""Convolutions as matrix products over gathered rows, and the passes that MACs are counted in.

`KERNELS` are the functions of `kernels.py`, or those of `tensors.py` where numba is absent. Two of
them multiply and are known to torch's counter: a bag costs one multiply-accumulate a channel and sample.
"""

import importlib.util

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from dynlib.fusion import conv, pack

if importlib.util.find_spec("numba") is None:
    from dynlib.papers.sampling import tensors as KERNELS
else:
    from dynlib.papers.sampling import kernels as KERNELS


@torch.library.custom_op("dynlib::sampled_weighted", mutates_args={"out"})
def weighted(rows: Tensor, offsets: Tensor, columns: Tensor, weights: Tensor, out: Tensor) -> None:
    """Write the sum of each bag to `out` (B, C)."""
    KERNELS.weighted(rows, offsets, columns, weights, out)


@torch.library.custom_op("dynlib::sampled_tail", mutates_args={"out"})
def tail(
    rows: Tensor,
    row_of: Tensor,
    offsets: Tensor,
    columns: Tensor,
    weights: Tensor,
    bias: Tensor,
    bare: bool,
    out: Tensor,
) -> None:
    """Finish a block over its shortcut `out` (N H W, C), in place: relu(shortcut + branch + bias)."""
    KERNELS.tail(rows, row_of, offsets, columns, weights, bias, bare, out)


@register_flop_formula([torch.ops.dynlib.sampled_weighted, torch.ops.dynlib.sampled_tail])
def _flops(rows, *args, out_shape, **kwargs) -> int:
    """Two for each sample of each bag and channel: the columns come third of the index tensors or second."""
    columns = args[1] if len(args) < 5 else args[2]
    return 2 * columns[0] * rows[1]


class Workspace:
    """Memory that the blocks of one network use in turn: fresh memory costs more time than writing to it."""

    def __init__(self):
        self._buffers: dict[str, Tensor] = {}
        self.density: Tensor | None = None  # (N,), of each image, in place of the learned one

    def take(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised (rows, columns) under a name; what stood there before is lost."""
        if name not in self._buffers or self._buffers[name].numel() < rows * columns:
            self._buffers[name] = torch.empty(rows * columns + rows * columns // 4)
        return self._buffers[name][: rows * columns].view(rows, columns)


class Product(nn.Module):
    """A convolution with batch norm folded in, over gathered rows or over the whole map.

    Args:
        layer: the convolution; its geometry is kept.
        weight: (C_out, C_in / groups, K, K) and
        bias: (C_out,) with batch norm folded in; None is no bias.
        size: (N, C_in, H, W) of the input for which the dense kernel is packed.
    """

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, size: tuple[int, ...]):
        super().__init__()
        self.geometry = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
        self.groups, self.out_channels, self.bias = layer.groups, layer.out_channels, bias
        # one matrix a group, its rows in the order of the gathered row: tap, then channel
        matrices = weight.permute(0, 2, 3, 1).flatten(1).view(self.groups, -1, weight[0].numel())
        self.matrices = matrices.transpose(1, 2).contiguous()
        self.arguments = list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups
        stride, padding, dilation, groups = self.arguments
        self.packed = pack(weight, padding, stride, dilation, groups, list(size))

    def forward(self, rows: Tensor, out: Tensor) -> None:
        """Gathered rows (P, K^2 C_in) times the kernel, into `out` (P, C_out)."""
        if self.groups == 1:
            if self.bias is None:
                torch.mm(rows, self.matrices[0], out=out)
            else:
                torch.addmm(self.bias, rows, self.matrices[0], out=out)
            return
        side = self.geometry[0]
        parts = rows.view(len(rows), side * side, self.groups, -1).permute(2, 0, 1, 3).flatten(2)
        product = torch.bmm(parts, self.matrices).transpose(0, 1).flatten(1)
        out.copy_(product if self.bias is None else product + self.bias)

    def everywhere(self, x: Tensor, relu: bool) -> Tensor:
        """relu(conv(x)) of a whole map (N, C_in, H, W)."""
        return conv(x, self.packed, self.bias, *self.arguments, relu)
