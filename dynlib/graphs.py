"""Reading a network as a graph: what every node does to channels, and a constraint solver over the channels.

A method is a rewrite of a `torch.fx` graph. What a rewrite has to know of a node is its *role*: whether it mixes
channels (conv, linear), keeps them apart (norm, pointwise, pool), demands two equal layouts (add, mul) or lines layouts
up (cat). Both octaves (which channels are low) and early exits (which stage owns a channel) follow from roles alone.
"""

import operator
from collections.abc import Callable, Hashable, Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2, ShiftedWindowAttention
from torchvision.ops import StochasticDepth

from dynlib import settings
from dynlib.errors import InputError
from dynlib.ops import evaluating, image_channels
from dynlib.tracing import follow, lies_in, read_what_was_written

PROBE_PX = 224  # side of the image for which shapes are found; the maps of usual networks divide it
PROBE_FRAMES = 16  # of the clip for which those of a network with three-dimensional convolutions are found

WHOLE = (StochasticDepth, LayerNorm2d, CNBlock, ShiftedWindowAttention, PatchMerging, PatchMergingV2)  # not looked into

# Role: what a node does to the channel dimension (dim 1).
CONV, TRANSPOSED, LINEAR = "conv", "transposed conv", "linear"  # mixes channels by a kernel
NORM = "norm"  # one set of parameters a channel
POINTWISE, POOL = "pointwise", "pool"  # the same for every channel, without parameters
GLOBAL_POOL, FLATTEN = "global pool", "flatten"  # ends the map
ADD, MUL, CAT = "add", "mul", "cat"
PART, SHUFFLE = "part", "shuffle"  # chunks of the channels; their order changed, as in grouped networks
SHAPE = "shape"  # asks for sizes, as in x.view(x.shape[0], -1)
INPUT, OUTPUT = "input", "output"

_MODULES: dict[type[nn.Module], str] = {
    **dict.fromkeys((nn.Conv2d, nn.Conv3d), CONV),
    **dict.fromkeys((nn.ConvTranspose2d, nn.ConvTranspose3d), TRANSPOSED),
    nn.Linear: LINEAR,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), NORM),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.SELU, nn.CELU, nn.Mish), POINTWISE),
    **dict.fromkeys((nn.Hardswish, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Softplus), POINTWISE),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity, StochasticDepth), POINTWISE),
    **dict.fromkeys((nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d), POOL),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), GLOBAL_POOL),
    nn.Flatten: FLATTEN,
}
_FUNCTIONS: dict[Callable, str] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add), ADD),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), MUL),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), CAT),
    **dict.fromkeys((F.relu, torch.relu, F.relu6, F.hardtanh, F.silu, F.gelu, torch.sigmoid), POINTWISE),
    **dict.fromkeys((F.mish, F.selu, F.celu, F.softplus, torch.clamp), POINTWISE),
    **dict.fromkeys((F.hardswish, F.hardsigmoid, F.sigmoid, F.leaky_relu, F.elu, torch.tanh, F.tanh), POINTWISE),
    **dict.fromkeys((F.max_pool2d, F.max_pool3d, F.avg_pool2d, F.avg_pool3d), POOL),
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.mean), GLOBAL_POOL),
    **dict.fromkeys((torch.flatten, torch.squeeze), FLATTEN),
    torch.chunk: PART,
}
_WITH_A_NUMBER = (operator.add, operator.sub, operator.mul, operator.truediv)  # a map and it: the same for each channel
_METHODS: dict[str, str] = {
    **dict.fromkeys(("add", "add_"), ADD),
    **dict.fromkeys(("mul", "mul_"), MUL),
    **dict.fromkeys(("relu", "relu_", "sigmoid", "contiguous", "clone"), POINTWISE),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze"), FLATTEN),
    "mean": GLOBAL_POOL,
    "chunk": PART,
    "size": SHAPE,
}


def trace(
    model: nn.Module,
    *,
    leaves: tuple[type[nn.Module], ...] = (),
    size: int | tuple[int, ...] | None = PROBE_PX,
    remedy: str = "",
) -> fx.GraphModule:
    """Graph of a model, sharing its modules; with a size every node's `meta["shape"]` is its shape for one such image.

    A size is a whole shape, (C, H, W) or (C, T, H, W), or the side of a square image of `ops.image_channels`,
    which a network with three-dimensional convolutions sees as a clip of `PROBE_FRAMES`. Shapes are found on
    the meta device: nothing is computed. What `dynlib.tracing` says of modes, writing and batch norms holds. Raises
    InputError where torch.fx cannot follow the model or the model does not take such an image or clip; `remedy` is
    then the end of the message.
    """
    kept = (*leaves, *WHOLE)
    traced = follow(model, lambda part: isinstance(part, kept) or _module_role(type(part)) is not None)
    traced.meta["modes"] = {path: part.training for path, part in model.named_modules()}
    if size is None:
        return traced
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    state = {key: value.to("meta") for key, value in named}
    dtype = next((value.dtype for value in state.values() if value.is_floating_point()), None)
    is_clip = any(isinstance(m, nn.Conv3d) for m in model.modules())
    square = (image_channels(traced), *[PROBE_FRAMES] * is_clip, size, size)
    shape = square if isinstance(size, int) else size
    try:
        with evaluating(traced):
            _Shadow(traced, state).run(torch.empty(1, *shape, dtype=dtype, device="meta"))
    except RuntimeError as error:
        reason, what = str(error).strip().splitlines()[0], "clip" if is_clip else "image"
        seen = f"{'x'.join(map(str, shape))} {what}"
        raise InputError(f"{type(model).__name__}: does not run on a {seen}: {reason:.150}{remedy}") from error
    read_what_was_written(traced)
    return traced


def probe(example: torch.Tensor | None) -> dict[str, object]:
    """`size` and `remedy` of `trace` for an example (N, C, [T,] H, W) that a caller may give, or not.

    Raises InputError for what is no such batch.
    """
    if example is None:
        return {"size": PROBE_PX, "remedy": "; give an `example`"}
    if not isinstance(example, torch.Tensor) or example.dim() not in (4, 5):
        given = str(tuple(example.shape)) if isinstance(example, torch.Tensor) else repr(example)
        raise InputError(f"example is {given:.100}; it is a batch of images (N, C, H, W) or of clips (N, C, T, H, W)")
    return {"size": tuple(example.shape[1:])}


def finish(traced: fx.GraphModule) -> fx.GraphModule:
    """Check and compile a graph from `trace` that was rewritten, in place; to be called once.

    Every layer keeps the mode that it was traced in, and a new one has that of what it lies in.
    """
    modes = traced.meta.pop("modes")
    for path, part in traced.named_modules():
        part.training = modes[path] = modes.get(path, modes[path.rpartition(".")[0]])
    traced.graph.lint()
    traced.recompile()
    return traced


class _Shadow(fx.Interpreter):
    """Notes the shape of every tensor while it runs the graph on meta copies of the parameters.

    Not torch's ShapeProp: that prints a traceback and hides the reason where a network does not run.
    """

    def __init__(self, traced, state):
        super().__init__(traced)
        self.state = state

    def run_node(self, n):
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        return result

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # slow without values, and the shape stays
            return args[0]
        own = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
        state = {name: self.state[f"{target}.{name}"] for name in own}
        return torch.func.functional_call(module, state, args, kwargs)

    def get_attr(self, target, args, kwargs):
        return self.state[target] if target in self.state else super().get_attr(target, args, kwargs).to("meta")


def _has_a_number(node: fx.Node) -> bool:
    """Whether an operation of two is one of a map and a number, the map first."""
    return len(node.args) == 2 and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], int | float)


def _shuffles(node: fx.Node) -> bool:
    """Whether a node is the step in the middle of a channel shuffle: .view(n, groups, -1, h, w).transpose(1, 2)."""
    if node.target not in ("transpose", torch.transpose) or node.args[1:] != (1, 2):
        return False
    grouped = node.args[0]
    return isinstance(grouped, fx.Node) and grouped.target in ("view", "reshape") and len(grouped.args) == 6


def _module_role(kind: type[nn.Module]) -> str | None:
    """Role of a module type in the table, or of one that inherits its forward (torchvision's convolutions of clips)."""
    bases = (base for base in kind.__mro__ if base in _MODULES and kind.forward is base.forward)
    return next((_MODULES[base] for base in bases), None)


def find_role(
    traced: fx.GraphModule, node: fx.Node, extra: Mapping[type[nn.Module] | Callable, str] | None = None
) -> str | None:
    """What the node does to channels, or None where nobody taught us the operation.

    `extra` adds module types and functions that only one method knows.
    """
    if node.op in ("placeholder", "output"):
        return INPUT if node.op == "placeholder" else OUTPUT
    if node.op == "call_module":
        part = traced.get_submodule(node.target)
        kind = type(part)
        if kind is nn.Upsample:
            return POOL if part.size is None else None  # to one size, both bands of an octave would have it
        return (extra or {}).get(kind) or _module_role(kind)
    if node.op == "call_function":
        if node.target is getattr:
            return SHAPE if node.args[1] == "shape" else None
        if node.target in (operator.getitem, operator.floordiv):  # of sizes or parts; of a map it would be a slice
            source = find_role(traced, node.args[0]) if isinstance(node.args[0], fx.Node) else None
            return source if source == SHAPE or (node.target is operator.getitem and source == PART) else None
        if node.target is F.interpolate:
            return POOL if len(node.args) == 1 and node.kwargs.get("size") is None else None
        if _shuffles(node):
            return SHUFFLE
        if node.target in _WITH_A_NUMBER and _has_a_number(node):
            return POINTWISE
        return (extra or {}).get(node.target) or _FUNCTIONS.get(node.target)
    if node.op == "call_method":
        return SHUFFLE if _shuffles(node) else _METHODS.get(node.target)
    return None


def role(traced: fx.GraphModule, node: fx.Node, extra: Mapping[type[nn.Module] | Callable, str] | None = None) -> str:
    """As `find_role`, but raises InputError naming a node that nobody has a rule for: a wrong guess would be silent."""
    if (found := find_role(traced, node, extra)) is not None:
        return found
    what = type(traced.get_submodule(node.target)) if node.op == "call_module" else node.target
    name = getattr(what, "__name__", str(what))
    known = {kind.__name__ for kind in _MODULES} | {fn.__name__ for fn in _FUNCTIONS} | _METHODS.keys()
    close = ", ".join(settings.nearest(name, sorted(known))[: settings.NEAREST])
    where = node.target if node.op == "call_module" else lies_in(node)
    raise InputError(f"{where:.90}: no rule for the operation {name:.60}; the closest known are {close}")


def probe_px(graph: fx.Graph) -> tuple[int, int]:
    """Height and width of the image for which the shapes of a graph were found."""
    return next(iter(graph.nodes)).meta["shape"][-2:]


def reduction(node: fx.Node) -> int:
    """How many times smaller than the image a node's map is: 224 px to 7 px is 32. The node must yield a map."""
    return round(probe_px(node.graph)[1] / node.meta["shape"][-1])


class Classes:
    """Union-find: sets of channel blocks that must be treated alike, with a flag that spreads over the whole set."""

    def __init__(self):
        self._parent: dict[Hashable, Hashable] = {}
        self._marks: set[Hashable] = set()

    def add(self, item: Hashable) -> None:
        """Start a set of its own for `item`."""
        self._parent.setdefault(item, item)

    def find(self, item: Hashable) -> Hashable:
        """The representative of the item's set."""
        while self._parent[item] != item:
            self._parent[item] = item = self._parent[self._parent[item]]
        return item

    def union(self, a: Hashable, b: Hashable) -> None:
        """Join two sets; a mark on either holds for both."""
        a, b = self.find(a), self.find(b)
        if a != b:
            self._parent[b] = a
            if b in self._marks:
                self._marks.add(a)

    def mark(self, item: Hashable) -> None:
        """Mark the item's set."""
        self._marks.add(self.find(item))

    def marked(self, item: Hashable) -> bool:
        """Whether anything in the item's set was marked."""
        return self.find(item) in self._marks
