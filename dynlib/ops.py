"""Tensor functions and small tools that two papers share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dynlib.errors import InputError


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zeros added below and to the right of a map (N, C, H, W) until both sides are multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple))


def has_values(x: Tensor) -> bool:
    """Whether there is anything to look at: counting runs on shapes alone."""
    return not (x.is_meta or isinstance(x, FakeTensor))


def image_channels(model: nn.Module) -> int:
    """How many channels the images of a network have: those that the first convolution of its graph reads.

    Of a network without a graph, or with graphs of parts alone (`meta["is_part"]`), 3 where any convolution reads 3,
    else as many as the one that was made first.
    """
    graphs = (part for part in model.modules() if isinstance(part, fx.GraphModule) and not part.meta.get("is_part"))
    graph = next(graphs, None)
    if graph is not None:
        called = [graph.get_submodule(node.target) for node in graph.graph.nodes if node.op == "call_module"]
        if read := [channels for part in called for channels in _channels_read(part)]:
            return read[0]
    read = [channels for part in model.modules() for channels in _channels_read(part)]
    return 3 if 3 in read or not read else read[0]


def _channels_read(part: nn.Module) -> list[int]:
    weight = getattr(part, "weight", None)
    is_kernel = isinstance(weight, Tensor) and weight.dim() in (4, 5)
    transposed = isinstance(part, nn.modules.conv._ConvTransposeNd)
    return [weight.shape[0] if transposed else weight.shape[1] * getattr(part, "groups", 1)] if is_kernel else []


class LinearResize(nn.Module):
    """Bilinear resizing of maps of one size to another as two matrix products, for runtimes without such a filter.

    (N, C, H, W) with `(H, W) == old` to (N, C, *new). With `antialias` it is `F.interpolate(..., antialias=True)`.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int], antialias: bool):
        super().__init__()
        for name, before, after in zip(("rows", "columns"), old, new, strict=True):
            one, size = torch.eye(before)[None, None], (after, before)
            matrix = F.interpolate(one, size, mode="bilinear", align_corners=False, antialias=antialias)[0, 0]
            self.register_buffer(name, matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Resize."""
        return self.rows @ (x @ self.columns.T)


class PadShortcut(nn.Module):
    """A ResNet's shortcut without parameters: every `stride`-th pixel, the new channels zero; no multiply-adds.

    (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)). The zeros come last, but for `before` of them: an
    old channel keeps its index. Option A of Sec. 4.2 of He et al., CVPR 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, before: int = 0):
        super().__init__()
        self.new_channels, self.stride, self.before = out_channels - in_channels, stride, before

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad."""
        near = x[:, :, :: self.stride, :: self.stride]
        return F.pad(near, (0, 0, 0, 0, self.before, self.new_channels - self.before))

    def extra_repr(self) -> str:
        """Show what was set."""
        return f"new_channels={self.new_channels}, stride={self.stride}"


def fused(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel (C_out, C_in / groups, K, K) and bias (C_out,) of a convolution with the batch norm behind it.

    Raises InputError where that has no statistics.
    """
    if norm.running_var is None:
        raise InputError(f"{norm}: track_running_stats is False; inference needs the statistics of the training")
    state = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    return tuple(value.detach() for value in fuse_conv_bn_weights(conv.weight, conv.bias, *state))


def keep_channels(norm: nn.Module, channels: Tensor) -> None:
    """Leave a batch norm these channels (indices) in this order, in place: parameters and statistics."""
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None:
            tensor.data = tensor.data[channels.to(tensor.device)]
    norm.num_features = len(channels)


def kaiming(module: nn.Module) -> nn.Module:
    """New weights for all convolutions, in place: He et al. (ICCV 2015), normal by fan-out, for ReLUs; biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[nn.Module]:
    """Every part in one mode, whatever its own `train` would do; each gets its own back, frozen parts included."""
    modes = [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = training
    try:
        yield module
    finally:
        for part, before in modes:
            part.training = before


def evaluating(module: nn.Module) -> AbstractContextManager[nn.Module]:
    """The module in evaluation mode, see `in_mode`."""
    return in_mode(module, False)


@contextmanager
def renewing(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """What runs in the block gives batch norms their statistics, a plain mean over batches; all else only evaluates."""
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad(), evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.train().momentum = None
        yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def sound_gradients(module: nn.Module) -> Iterator[nn.Module]:
    """Go around two faults of oneDNN's kernel gradients on a CPU, with the same numbers.

    Narrow strided 1x1 convolutions take every second pixel and then convolve at stride 1: in channels-last memory their
    gradient writes beyond its buffer where the map has fewer channels than a block, 8 or 16 (uxlfoundation/oneDNN issue
    6035), and the process dies some time later. Strided 3x3 convolutions take a map of one pixel with zeros below and
    beside it: in bfloat16 the gradient of taps that see no pixel is left as the memory was, which may be anything.
    """
    narrow = [
        (conv, conv.stride)
        for conv in module.modules()
        if isinstance(conv, nn.Conv2d) and (conv.kernel_size, conv.padding) == ((1, 1), (0, 0))
        if max(conv.stride) > 1 and conv.in_channels < 16
    ]
    hooks = [conv.register_forward_pre_hook(_every(*stride)) for conv, stride in narrow]
    hooks += [
        conv.register_forward_pre_hook(_more_than_a_pixel)
        for conv in module.modules()
        if isinstance(conv, nn.Conv2d)
        if (conv.kernel_size, conv.padding, conv.stride) == ((3, 3), (1, 1), (2, 2))
    ]
    try:
        for conv, _ in narrow:
            conv.stride = (1, 1)
        yield module
    finally:
        for hook in hooks:
            hook.remove()
        for conv, stride in narrow:
            conv.stride = stride


def _every(rows: int, columns: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    return lambda conv, inputs: (inputs[0][..., ::rows, ::columns],)


def _more_than_a_pixel(conv: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return (F.pad(inputs[0], (0, 1, 0, 1)),) if inputs[0].shape[-2:] == (1, 1) else None


@contextmanager
def watching(parts: Mapping[str, nn.Module], see: Callable[[str, tuple, object], None]) -> Iterator[None]:
    """Call `see(name, inputs, output)` after every forward pass of one of the parts within the block."""
    with ExitStack() as hooks:
        for name, part in parts.items():
            hook = part.register_forward_hook(lambda _, inputs, output, name=name: see(name, inputs, output))
            hooks.callback(hook.remove)
        yield


@torch.no_grad()
def output_of(model: nn.Module, layer: str, *inputs: Tensor) -> object:
    """What the named layer yields while the model runs on the inputs in evaluation mode; of several calls, the last."""
    found = {}
    with evaluating(model), watching({layer: model.get_submodule(layer)}, lambda *seen: found.update(output=seen[2])):
        model(*inputs)
    return found["output"]
