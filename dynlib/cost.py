"""What a network costs: multiply-accumulates (MACs) counted as they run, and the same integers in closed form.

A "FLOP" of these papers is one multiply-accumulate. Counted are convolutions, linear layers and matrix products and
nothing else; what else computed is named in `Cost.uncounted`. Another convention comes as formulas. Counting takes no
arithmetic: it runs on fake tensors, which have shapes and no values, so a network at 1000 px is counted in a second. A
network that looks at values (an exit taken on confidence, positions chosen by a mask) cannot run on shapes alone; it is
counted while it really runs, on the example given.
"""

import contextlib
import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlock
from torchvision.models.swin_transformer import ShiftedWindowAttention

from dynlib.errors import InputError
from dynlib.ops import evaluating, has_values, image_channels, watching

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """The cost of one image."""

    macs: int  # multiply-accumulates of the whole network, batch 1
    params: int  # numbers in all parameters, buffers excluded
    by_layer: dict[str, int]  # module name -> MACs of its own operators, non-zero, in execution order; sums to macs
    uncounted: tuple[str, ...] = ()  # operators that computed and were not counted, sorted; empty in closed form


# ---------------------------------------------------------------------------------------------------------- inputs


MOST_PX = 8192  # side of an image: one of more takes gigabytes


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in pixels from "224" or "480x640". Raises InputError for anything else."""
    parts = text.split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() and len(p) < 9 and 0 < int(p) <= MOST_PX for p in parts):
        raise InputError(f"size {text!r:.40}: write S or HxW in whole pixels up to {MOST_PX}, such as 224 or 480x640")
    return int(parts[0]), int(parts[-1])


def example(size: int | tuple[int, ...], channels: int = 3, batch: int = 1) -> Tensor:
    """A standard-normal input (batch, channels, *size), always the same one; an int is a square image.

    Raises InputError where a side, the channels or the batch is below 1.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    shape = (batch, channels, *size)
    if min(shape) < 1:
        raise InputError(f"example shape is {shape}; every number in it must be at least 1")
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------------------------------- formulas


def conv_macs(conv: nn.Module, pixels: Iterable[int]) -> int:
    """MACs of a convolution of any dimension and any groups: each weight is used once per pixel.

    `pixels` is the output size (H, W), (L,) or (T, H, W); for a transposed convolution, the input size.
    """
    return conv.weight.numel() * prod(pixels)  # eq-conv-macs


# ------------------------------------------------------------------------------------------------------- counting

# Making, moving and viewing numbers is not computing. Anything neither listed here nor counted is reported.
_MOVES = {
    *("arange", "empty", "empty_like", "fill", "full", "full_like", "new_empty", "new_full", "new_zeros", "ones"),
    *("ones_like", "scalar_tensor", "zero", "zeros", "zeros_like"),
    *("_local_scalar_dense", "_to_copy", "_unsafe_view", "cat", "clone", "constant_pad_nd", "copy", "gather", "index"),
    *("index_copy", "index_put", "index_select", "lift_fresh", "reflection_pad2d", "repeat", "replicate_pad2d", "roll"),
    *("scatter", "stack"),
}


class _Ledger(TorchDispatchMode):
    """Stands above a counter and books what each operator added under the innermost module that was running."""

    def __init__(self, counter: FlopCounterMode):
        super().__init__()
        self.counter = counter
        self.flops: dict[str, int] = {}
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = self.counter.get_total_flops()
        out = func(*args, **(kwargs or {}))
        flops = self.counter.get_total_flops() - before
        if flops:
            path = max(self.counter.mod_tracker.parents - {"Global"}, key=len)  # "ResNet.layer1.0.conv1"
            layer = path.partition(".")[2]  # "layer1.0.conv1"; "" is the network itself, as in named_modules()
            self.flops[layer] = self.flops.get(layer, 0) + flops
        elif func.overloadpacket not in self.counter.flop_registry and not (func.is_view or func.namespace == "prim"):
            namespace, name = func._schema.name.split("::")
            name = name.removesuffix("_")  # in place or not is the same operator
            if namespace != "aten":
                self.uncounted.add(f"{namespace}.{name}")
            elif name not in _MOVES:
                self.uncounted.add(name)
        return out


class _QuickShapes(TorchDispatchMode):
    """Answers for what costs nothing where there are only shapes.

    Torch works out the shape of a batch norm, of an up-sampling and of a sum in Python, operator by operator, which
    takes about half of the time.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        x = args[0] if args else None
        if isinstance(x, Tensor) and not has_values(x):
            if func is aten.native_batch_norm.default and not args[5]:  # in eval mode
                nothing = x.new_empty(0)
                return torch.empty_like(x), nothing, nothing
            if func in (aten.upsample_nearest2d.default, aten.upsample_nearest3d.default):
                return x.new_empty(*x.shape[:2], *args[1])
            if func is aten.add.Tensor and isinstance(args[1], Tensor) and _alike(x, args[1]):
                return torch.empty_like(x)
        return func(*args, **(kwargs or {}))


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)


def count(module: nn.Module, *example: Tensor, formulas: Mapping | None = None) -> Cost:
    """The cost of running `module` in eval mode on one image, by torch's own counter.

    It counts what really ran: a block skipped costs nothing. The module keeps its mode, its weights and its buffers.

    Args:
        module: anything whose forward takes the example's tensors.
        example: its inputs, each (1, ...), on the module's device.
        formulas: operator -> count, for a convention other than MACs; they come before torch's own.

    Raises InputError where an input holds more than one image.
    """
    for x in example:
        if len(x) != 1:
            raise InputError(f"example has batch {len(x)}; a cost is that of one image, so it must be 1")
    # The counter's unit is two per multiply-add.
    doubled = {op: lambda *a, of=formula, **k: 2 * of(*a, **k) for op, formula in (formulas or {}).items()}

    def counted(module: nn.Module, inputs: tuple[Tensor, ...]) -> _Ledger:
        counter = FlopCounterMode(display=False, custom_mapping=doubled)
        with counter, _QuickShapes(), _Ledger(counter) as ledger:
            module(*inputs)
        assert sum(ledger.flops.values()) == counter.get_total_flops()
        return ledger

    ledger = _run(module, example, counted)
    by_layer = {layer: flops // 2 for layer, flops in ledger.flops.items()}
    return Cost(sum(by_layer.values()), _params(module), by_layer, tuple(sorted(ledger.uncounted)))


def _params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _run(module: nn.Module, inputs: tuple[Tensor, ...], watched: Callable):
    """`watched(module, inputs)` in eval mode without gradients: on a fake twin, or for real where values are looked at.

    A network on the meta device has no values anyway and needs no twin: four times faster. torch reports a look at a
    value that does not exist, and an operator without a rule for shapes, as a RuntimeError. A mistake in the network
    or its input raises again in the real run, and there it is not caught.
    """
    with torch.no_grad():
        if all(x.device.type != "meta" for x in inputs):
            fake = FakeTensorMode()
            with FakeCopyMode(fake):
                twin, shapes = copy.deepcopy((module, inputs))
            with contextlib.suppress(RuntimeError), fake:
                return watched(twin.eval(), shapes)
        with evaluating(module):
            return watched(module, inputs)


# ------------------------------------------------------------------------------------------------------ closed form

Shape = tuple  # sizes of one image: (C, H, W); a pair of tensors has a pair of them, an absent one is None
Formula = Callable[[nn.Module, Shape, Shape], int]  # (module, shape of its inputs, shape of its output) -> MACs


def window_macs(m: ShiftedWindowAttention, inputs: tuple[Shape, ...], output: Shape) -> int:
    """MACs of attention within windows on a map (H, W, C) padded to whole ones, without those of layers inside."""
    positions = prod(ceil(side / window) * window for side, window in zip(output[:2], m.window_size, strict=True))
    products = 2 * prod(m.window_size) * output[2]  # of queries and keys, and with values
    return positions * (m.qkv.weight.numel() + products + m.proj.weight.numel())


class Costed:
    """A layer that brings its own formula, which also stands for all modules inside it."""

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        """Multiply-accumulates for one image, from the shapes of the inputs and of the output."""
        raise NotImplementedError


_FORMULAS: dict[type, Formula] = {
    Costed: lambda m, inputs, output: m.macs(inputs, output),
    nn.modules.conv._ConvTransposeNd: lambda m, inputs, output: conv_macs(m, inputs[0][1:]),
    nn.modules.conv._ConvNd: lambda m, inputs, output: conv_macs(m, output[1:]),
    nn.Linear: lambda m, inputs, output: m.weight.numel() * prod(output[:-1]),
    ShiftedWindowAttention: window_macs,
}
_FREE = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU, CNBlock)  # parameters, yet no products


def layer_sizes(module: nn.Module, input_size: int | tuple[int, ...], channels: int | None = None) -> dict[str, Shape]:
    """Output (C, H, W) of every leaf module, by name, in execution order; of a module called again, its last.

    The input is one image of `input_size` pixels, an int being a square, and of `channels` channels, by default as
    `ops.image_channels` says.
    """
    leaves = [name for name, m in module.named_modules() if not any(m.children())]
    return {name: output for name, _, output in _calls(module, leaves, input_size, channels)}


def closed_form(module: nn.Module, input_size: int | tuple[int, ...], channels: int | None = None) -> Cost:
    """The MACs of one image as a sum of formulas over modules; equals `count` where all products lie in such modules.

    Args:
        module: of `Costed` layers, convolutions (plain and transposed, any dimension, any groups), linear layers,
            attention within windows.
        input_size: pixels of the image; an int is a square.
        channels: of the image; None is what `ops.image_channels` says.

    Raises InputError where a module has parameters of its own and no formula.
    """
    leaves: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, m in module.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(m, tuple(_FORMULAS)):
            leaves[name] = m
            inside = inside if isinstance(m, ShiftedWindowAttention) else (*inside, f"{name}." if name else "")
        elif any(True for _ in m.parameters(recurse=False)) and not isinstance(m, _FREE) and not _only_scales(m):
            what = f"{name or 'the network'} is a {type(m).__name__}"
            raise InputError(f"{what}, which has parameters and no formula; let it be a `Costed`")
    by_layer: dict[str, int] = {}
    for name, inputs, output in _calls(module, leaves, input_size, channels):
        formula = next(f for kind, f in _FORMULAS.items() if isinstance(leaves[name], kind))
        by_layer[name] = by_layer.get(name, 0) + formula(leaves[name], inputs, output)
    by_layer = {name: macs for name, macs in by_layer.items() if macs}
    return Cost(sum(by_layer.values()), _params(module), by_layer)


def _only_scales(m: nn.Module) -> bool:
    """Whether a graph does nothing with parameters of its own but multiply and add them, number by number."""
    nodes = m.graph.nodes if isinstance(m, fx.GraphModule) else ()
    readers = [user.target for node in nodes if node.op == "get_attr" for user in node.users]
    return bool(readers) and all(target in (operator.mul, operator.add) for target in readers)


def _calls(
    module: nn.Module, leaves: Iterable[str], input_size, channels: int | None
) -> list[tuple[str, Shape, Shape]]:
    """(name, shape of the inputs, shape of the output) of each call of the named modules, in order, batch left out."""

    def watched(module: nn.Module, inputs: tuple[Tensor, ...]):
        calls, parts = [], {name: module.get_submodule(name) for name in leaves}
        with watching(parts, lambda name, *shapes: calls.append((name, *map(_shape, shapes)))), _QuickShapes():
            module(*inputs)
        return calls

    parameter = next(module.parameters(), None)
    image = example(input_size, channels or image_channels(module))
    image = image if parameter is None else image.to(parameter)
    return _run(module, (image,), watched)


def _shape(value):
    return tree_map(lambda v: tuple(v.shape[1:]) if isinstance(v, Tensor) else v, value)
