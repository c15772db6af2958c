"""Reading a network as a graph, and a constraint solver over its channels.

A method is a rewrite of a `torch.fx` graph, by what each node does to channels, see `dynlib.roles`.
"""

import copy
import operator
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2, ShiftedWindowAttention
from torchvision.ops import StochasticDepth

from dynlib.errors import InputError
from dynlib.ops import PadShortcut, image_channels
from dynlib.roles import module_role
from dynlib.tracing import follow, read_what_was_written

PROBE_PX = 224  # side of the image for which shapes are found; the maps of usual networks divide it
PROBE_FRAMES = 16  # of the clip for which those of a network with three-dimensional convolutions are found

# Not looked into.
WHOLE = (PadShortcut, StochasticDepth, LayerNorm2d, CNBlock, ShiftedWindowAttention, PatchMerging, PatchMergingV2)


def trace(model: nn.Module, leaves: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """Graph of a model, sharing its modules; what `dynlib.tracing` says of modes, writing and batch norms holds.

    `leaves` are not looked into, as are layers with a role. Raises InputError where torch.fx cannot follow the model.
    """
    kept = (*leaves, *WHOLE)
    traced = follow(model, lambda part: isinstance(part, kept) or module_role(type(part)) is not None)
    traced.meta["modes"] = {path: part.training for path, part in model.named_modules()}
    return traced


def read(model: nn.Module, example: torch.Tensor | None = None) -> fx.GraphModule:
    """As `trace`; every node's `meta["shape"]` is its shape for one image or clip of the example (N, C, [T,] H, W).

    Without an example that is a square of `PROBE_PX` with as many channels as `ops.image_channels` says, and for a
    network with three-dimensional convolutions a clip of `PROBE_FRAMES` such. Shapes are found on the meta device:
    nothing is computed. Shortcuts that are written out become layers, see `as_shortcuts`. Raises InputError also where
    the model does not take such an image or clip.
    """
    check_example(example)
    traced = trace(model)
    state = {id(tensor): tensor.to("meta") for tensor in (*traced.parameters(), *traced.buffers())}
    shadow = copy.deepcopy(traced, dict(state)).eval()
    dtype = next((tensor.dtype for tensor in state.values() if tensor.is_floating_point()), None)
    is_clip = any(isinstance(m, nn.Conv3d) for m in model.modules())
    square = (image_channels(traced), *[PROBE_FRAMES] * is_clip, PROBE_PX, PROBE_PX)
    shape = square if example is None else tuple(example.shape[1:])
    try:
        _Shapes(shadow, graph=traced.graph).run(torch.empty(1, *shape, dtype=dtype, device="meta"))
    except RuntimeError as error:
        reason, what = str(error).strip().splitlines()[0], "clip" if is_clip else "image"
        seen = f"{'x'.join(map(str, shape))} {what}"
        remedy = "; give an `example`" if example is None else ""
        raise InputError(f"{type(model).__name__}: does not run on a {seen}: {reason:.150}{remedy}") from error
    read_what_was_written(traced)
    as_shortcuts(traced)
    return traced


def check_example(example: torch.Tensor | None) -> None:
    """Raise InputError for what is no batch of images or clips."""
    if example is not None and (not isinstance(example, torch.Tensor) or example.dim() not in (4, 5)):
        given = str(tuple(example.shape)) if isinstance(example, torch.Tensor) else repr(example)
        raise InputError(f"example is {given:.100}; it is a batch of images (N, C, H, W) or of clips (N, C, T, H, W)")


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


def put_behind(node: fx.Node, name: str, layer: nn.Module) -> None:
    """Let whoever reads a node read what a new layer of its network makes of it."""
    node.graph.owning_module.add_submodule(name, layer)
    with node.graph.inserting_after(node):
        new = node.graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def as_shortcuts(traced: fx.GraphModule) -> int:
    """Put the layer in the place of its public form, F.pad(x[:, :, ::s, ::s], (0, 0, 0, 0, a, b)); how often."""
    found = 0
    for node in list(traced.graph.nodes):
        near = node.args[0] if node.op == "call_function" and node.target is F.pad else None
        if not isinstance(near, fx.Node) or near.target is not operator.getitem or len(near.users) > 1:
            continue
        stride = near.args[1][-1].step if isinstance(near.args[1], tuple) and len(near.args[1]) == 4 else None
        every, steps = slice(None), slice(None, None, stride)
        if stride is None or near.args[1] != (every, every, steps, steps) or node.args[1][:4] != (0,) * 4:
            continue
        if len(node.args[1]) != 6 or not {*node.args[2:], *node.kwargs.values()} <= {"constant", 0, None}:
            continue
        name, (before, after) = f"{node.name}_shortcut", node.args[1][4:]
        traced.add_submodule(name, PadShortcut(0, before + after, stride, before))
        node.op, node.target, node.args, node.kwargs = "call_module", name, near.args[:1], {}
        traced.graph.erase_node(near)
        found += 1
    traced.recompile()
    return found


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor while it runs a graph.

    Not torch's ShapeProp: that prints a traceback and hides the reason where a network does not run.
    """

    def run_node(self, n):
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        return result

    def call_module(self, target, args, kwargs):
        if isinstance(self.fetch_attr(target), nn.modules.batchnorm._BatchNorm):  # slow without values; the shape stays
            return args[0]
        return super().call_module(target, args, kwargs)


def probe_px(graph: fx.Graph) -> tuple[int, int]:
    """Height and width of the image for which the shapes of a graph were found."""
    return next(iter(graph.nodes)).meta["shape"][-2:]


def reduction(node: fx.Node) -> int:
    """How many times smaller than the image a node's map is: 224 px to 7 px is 32. The node must yield a map."""
    return round(probe_px(node.graph)[1] / node.meta["shape"][-1])


class Classes:
    """Sets of channel blocks that must be treated alike, with a flag that spreads over the whole set."""

    def __init__(self):
        self._sets: dict[Hashable, set[Hashable]] = {}
        self._marks: set[Hashable] = set()

    def add(self, item: Hashable) -> None:
        """Start a set of its own for `item`."""
        self._sets.setdefault(item, {item})

    def find(self, item: Hashable) -> Hashable:
        """The representative of the item's set."""
        return next(iter(self._sets[item]))

    def union(self, a: Hashable, b: Hashable) -> None:
        """Join two sets; a mark on either holds for both."""
        joined = self._sets[a] | self._sets[b]
        self._sets |= dict.fromkeys(joined, joined)

    def mark(self, item: Hashable) -> None:
        """Mark the item's set."""
        self._marks.add(item)

    def marked(self, item: Hashable) -> bool:
        """Whether anything in the item's set was marked."""
        return not self._marks.isdisjoint(self._sets[item])
