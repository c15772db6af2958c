"""Freezing a network for inference on a CPU: batch norm folded, additions and ReLU fused, kernels packed.

`Freezer` walks a traced network once, with a real example, and writes a second graph: what has to run, in the order in
which it has to run. A convolution waits until it is known what follows it: a batch norm is folded into its kernel, an
addition and a ReLU are carried out by the convolution itself. oneDNN's convolutions do both and keep their kernels
packed. They are the operations that torch's compiler emits when it freezes a network, so nothing has to be compiled and
no C++ compiler is needed. Where torch was built without oneDNN the same graph runs on plain convolutions.

A method subclasses `Freezer` to write operations of its own.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula
from torchvision.ops import StochasticDepth

from dynlib.errors import InputError
from dynlib.graphs import ADD, CONV, INPUT, NORM, OUTPUT, find_role, trace
from dynlib.ops import evaluating

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
_RELU = (nn.ReLU, F.relu, torch.relu, torch.Tensor.relu, torch.Tensor.relu_, "relu", "relu_")
_IDLE = (nn.Dropout, nn.Dropout2d, nn.Identity, StochasticDepth)  # nothing at inference


@dataclass(eq=False)
class Pending:
    """A convolution that is not written yet, with what it has taken in of its surroundings."""

    conv: nn.Module
    source: object  # its input, written
    last: fx.Node  # the last source node that became part of it
    scale: Tensor | None = None  # (C_out,), with `shift` the batch norm behind it
    shift: Tensor | None = None
    residual: object = None  # a written value to add
    relu: bool = False
    written: object = None

    @property
    def kernel(self) -> tuple[Tensor, Tensor]:
        """Kernel (C_out, C_in / groups, K, K) and bias (C_out,), batch norm folded in."""
        weight = self.conv.weight.detach()
        bias = weight.new_zeros(weight.shape[0]) if self.conv.bias is None else self.conv.bias.detach()
        if self.scale is None:
            return weight, bias
        return weight * self.scale[:, None, None, None], bias * self.scale + self.shift


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in evaluation mode. Raises InputError where it has no running statistics."""
    if norm.running_var is None:
        raise InputError(f"{norm}: track_running_stats is False; inference needs the statistics of the training")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if not norm.affine:
        return scale, -norm.running_mean * scale
    scale = scale * norm.weight.detach()
    return scale, norm.bias.detach() - norm.running_mean * scale


class Freezer:
    """Writes the frozen graph of one network; one instance a network."""

    roles: ClassVar[Mapping[type[nn.Module] | Callable, str]] = {}  # types and functions that only the method knows

    def __init__(self, traced: fx.GraphModule, example: Tensor):
        for name, tensor in traced.named_parameters():
            if (tensor.dtype, tensor.device.type) != (torch.float32, "cpu"):
                raise InputError(
                    f"{name} is {tensor.dtype} on {tensor.device}; frozen networks are float32 on the CPU: "
                    "model.float().cpu()"
                )
        if example.dim() == 5:
            raise InputError(
                f"example is {tuple(example.shape)}; only images (N, 3, H, W) can be frozen for, not clips and Conv3d"
            )
        check_images(example)
        self.source, self.example = traced, example.to(memory_format=torch.channels_last)
        self.graph, self.holder = fx.Graph(), nn.Module()
        self.values: dict[fx.Node, object] = {}

    def run(self) -> "Frozen":
        """The frozen network."""
        with torch.inference_mode(), evaluating(self.source):
            for node in self.source.graph.nodes:
                self.values[node] = self.step(node)
        self.graph.lint()
        for node in self.graph.nodes:
            node.meta.clear()  # the values of the example
        return Frozen(fx.GraphModule(self.holder, self.graph))

    def step(self, node: fx.Node) -> object:
        """The value of a source node: an fx.Node of the new graph, a `Pending`, or what a method makes of it."""
        kind = find_role(self.source, node, self.roles)
        if kind == INPUT:
            new = self.graph.placeholder("images")
            new.meta["value"] = self.example
            return new
        if kind == OUTPUT:
            return self.graph.output(fx.node.map_arg(node.args[0], lambda n: self.write(self.values[n])))
        if node.op == "get_attr":
            return self.constant(fx.graph_module._get_attr(self.source, node.target).detach())
        what = self.source.get_submodule(node.target) if node.op == "call_module" else node.target
        if not node.all_input_nodes:
            return self.copy(node, what)
        value = self.values[node.all_input_nodes[0]]
        if kind == CONV and what.padding_mode == "zeros" and not isinstance(what.padding, str):
            return Pending(what, self.write(value), node)
        if what in _IDLE or type(what) in _IDLE:
            return value
        if kind == ADD and (merged := self._take_addition(node)) is not None:
            return merged
        if self._open(node.all_input_nodes[0]) and not value.relu:
            if kind == NORM and value.residual is None and value.scale is None:
                value.scale, value.shift = affine(what)
                value.last = node
                return value
            if self.is_relu(node, what):
                value.relu, value.last = True, node
                return value
        return self.copy(node, what)

    def is_relu(self, node: fx.Node, what: object) -> bool:
        """Whether the node is a ReLU."""
        return what in _RELU or type(what) in _RELU

    def _open(self, node: fx.Node) -> bool:
        """Whether the node's value is a convolution that may take in what follows."""
        value = self.values[node]
        return isinstance(value, Pending) and value.written is None and len(node.users) == 1

    def _take_addition(self, node: fx.Node) -> Pending | None:
        """The convolution that carries out the addition: the later one of two, so that the earlier one is there."""
        if len(node.all_input_nodes) < 2 or node.kwargs:  # a number, the same map twice, a factor
            return None
        for mine, other in (node.args, node.args[::-1]):
            if self._open(mine) and self.values[mine].residual is None and not self.values[mine].relu:
                pending = self.values[mine]
                pending.residual, pending.last = self.write(self.values[other]), node
                return pending
        return None

    def write(self, value: object) -> object:
        """The value, written into the graph if it was waiting."""
        if not isinstance(value, Pending):
            return value
        if value.written is None:
            value.written = self.write_conv(value)
        return value.written

    def write_conv(self, pending: Pending) -> object:
        """Write one convolution with everything it took in."""
        conv = pending.conv
        weight, bias = pending.kernel
        geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
        return self.convolve(pending.source, weight, bias, *geometry, pending.residual, pending.relu)

    def convolve(
        self,
        x: fx.Node,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple,
        padding: tuple,
        dilation: tuple,
        groups: int,
        other: fx.Node | None = None,
        relu: bool = False,
    ) -> fx.Node:
        """Write relu(conv(x) + other); the kernel is packed for the example's size."""
        stride, padding, dilation = list(stride), list(padding), list(dilation)
        size = list(x.meta["value"].shape)
        kernel = self.constant(pack(weight, padding, stride, dilation, groups, size))
        offset = self.constant(bias.contiguous()) if bias is not None else None
        arguments = (x, kernel, offset, stride, padding, dilation, groups, relu)
        return self.call(conv, *arguments) if other is None else self.call(conv_add, *arguments, other)

    def copy(self, node: fx.Node, what: object) -> fx.Node:
        """Write a node as it is."""
        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), lambda n: self.write(self.values[n]))
        if node.op == "call_function":
            return self.call(what, *arguments, **keywords)
        if node.op == "call_method":
            what = "reshape" if what == "view" else what  # channels-last maps cannot be viewed as rows
            return self.call(getattr(torch.Tensor, what), *arguments, **keywords)
        return self.call(self.module(what), *arguments, **keywords)

    def module(self, module: nn.Module) -> str:
        """Keep a copy of a module in the new network and return its name there."""
        name = f"part_{len(self.holder._modules)}"
        self.holder.add_module(name, copy.deepcopy(module).eval())
        return name

    def constant(self, tensor: Tensor) -> fx.Node:
        """Keep a tensor in the new network."""
        name = f"constant_{len(self.holder._buffers)}"
        self.holder.register_buffer(name, tensor, persistent=False)
        node = self.graph.get_attr(name)
        node.meta["value"] = tensor
        return node

    def call(self, what: Callable | str, *args, **kwargs) -> fx.Node:
        """Write a call of a function, or of a kept module by name, and run it on the example."""
        values, keywords = fx.node.map_arg((args, kwargs), lambda n: n.meta["value"])
        if isinstance(what, str):
            node, function = self.graph.call_module(what, args, kwargs), self.holder.get_submodule(what)
        else:
            node, function = self.graph.call_function(what, args, kwargs), what
        node.meta["value"] = function(*values, **keywords)
        return node


class Frozen(nn.Module):
    """A frozen network: inference only, float32, CPU; its `graph.code` is what runs, line by line.

    Packed kernels can be neither copied nor saved: keep the weights of the network that it was made from.
    """

    def __init__(self, graph: fx.GraphModule):
        super().__init__()
        self.graph = graph

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to what the network returns, any N. Raises InputError for another type or layout."""
        check_images(images)
        return self.graph(images.contiguous(memory_format=torch.channels_last))


def check_images(images: Tensor) -> None:
    """Raise InputError for what a frozen network does not take."""
    if images.ndim != 4 or (images.dtype, images.device.type) != (torch.float32, "cpu"):
        raise InputError(
            f"images are {images.dtype} {tuple(images.shape)} on {images.device}; "
            "a frozen network takes float32 (N, C, H, W) on the CPU"
        )


def freeze(model: nn.Module, example: Tensor) -> Frozen:
    """The frozen form of an ordinary network; outputs equal those in evaluation mode within float32 rounding."""
    return Freezer(trace(model, size=None), example).run()


def pack(weight: Tensor, padding: list, stride: list, dilation: list, groups: int, size: list) -> Tensor:
    """The kernel in oneDNN's own layout for an input of this size (N, C, H, W); as it is where there is no oneDNN."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    if not _ONEDNN:
        return weight
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, size)


def conv(x, weight, bias, stride, padding, dilation, groups, relu):
    """relu(conv(x)) with a packed kernel."""
    if not _ONEDNN:
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return y.relu_() if relu else y
    fused = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, fused, [], "")


def conv_add(x, weight, bias, stride, padding, dilation, groups, relu, other):
    """relu(conv(x) + other) with a packed kernel."""
    if not _ONEDNN:
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups).add_(other)
        return y.relu_() if relu else y
    fused = "relu" if relu else None
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, other, weight, bias, padding, stride, dilation, groups, "add", 1.0, fused, [], ""
    )


def _flops(x, second, third, *args, out_shape, **kwargs) -> int:
    """For torch's counter: of a convolution (x, weight, bias, ...), or of one with addition (x, other, weight, ...)."""
    weight = third if third is not None and len(third) == len(x) else second
    return conv_flop_count(x, weight, out_shape)


if _ONEDNN:
    register_flop_formula(torch.ops.mkldnn._convolution_pointwise)(_flops)
