"""Octave convolution: Chen et al., "Drop an Octave", ICCV 2019 (arXiv 1904.05049).

Natural images are mostly low frequency, and so are feature maps. An octave layer keeps a share `alpha` of its channels
at half resolution, where a convolution costs a quarter, and lets the two bands talk through pooling and up-sampling.

The operator and its layers, with the symbols of the paper, stand in `octconv_ops.py`; this file turns a network into an
octave network. `convert` follows the graph: every tensor has a channel split, additions demand equal splits, a
concatenation lines splits up, and the layers of the last stage stay plain.

Departures from the paper, each with its reason:

- The stem is plain and the last stage is plain, as in the authors' code (Sec. 4.1 says so for the last stage: 7 x 7
  maps do not halve). Here both are found from the graph, so that any network has them: the stem is the first
  convolution, the last stage is every convolution at the smallest map, and one read by nothing but a strided one there.
- A network without a projection in its first block (ResNet-18, CIFAR ResNets) adds a plain tensor to an octave. The
  plain one enters by pooling those of its channels that are low, without parameters; the paper has no such network.
- `alpha = 0` is the original network, strided convolutions and all. The authors' code pools before a convolution even
  then; that other network is `pooled_control`, and the chapter trains both.
- The stage whose map is odd at a given size is an error, as in the paper; `sizes="pad"` adds zeros instead.
"""

import copy
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import fx, nn

from dynlib.backbones.cifar_resnet import PadShortcut
from dynlib.cost import Cost, closed_form
from dynlib.errors import InputError
from dynlib.fusion import Frozen, freeze
from dynlib.graphs import (
    ADD,
    CAT,
    CONV,
    INPUT,
    NORM,
    POINTWISE,
    POOL,
    PROBE_PX,
    Classes,
    reduction,
    role,
    trace,
)
from dynlib.papers.octconv_deploy import OctaveFreezer
from dynlib.papers.octconv_ops import (
    AVERAGE,
    STRIDED,
    Both,
    OctaveInput,
    OctBatchNorm2d,
    OctConv2d,
    OctIdentity,
    Split,
    is_depthwise,
    octave_add,
    octave_cat,
    split_channels,
)

SHORTCUT = "shortcut"  # the role of a shortcut without parameters


@dataclass(frozen=True)
class Config:
    """Settings of an octave network; each value is checked and a bad one named."""

    alpha: float = 0.5  # share of low-frequency channels, [0, 1]; the paper tries 0.125 to 0.75 (Table 2)
    downsampling: str = AVERAGE  # average: pool, then convolve; strided: strided convolution (Table 3)
    high_to_low: bool = True  # the path from high to low (Table 3)
    low_to_high: bool = True  # the path from low to high (Table 3)
    pooled_control: bool = False  # alpha 0 only: pool before convolving where the network strides, as the authors' code
    sizes: str = "reject"  # reject: an image whose maps do not halve is an error; pad: zeros below and to the right
    vanilla: tuple[str, ...] = ()  # names, * allowed, of layers with a plain output, in place of the last stage

    def __post_init__(self):
        """Refuse what makes no sense."""
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not 0 <= self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha!r}; it is the share of low-frequency channels, from 0 to 1")
        object.__setattr__(self, "alpha", float(self.alpha))  # 0 and 0.0 are one setting and have one hash
        for name, allowed in (("downsampling", (AVERAGE, STRIDED)), ("sizes", ("reject", "pad"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for name in ("high_to_low", "low_to_high", "pooled_control"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed: true, false")
        if self.pooled_control and (self.alpha > 0 or self.downsampling != AVERAGE):
            raise InputError(
                f"pooled_control is a control at alpha 0 with average downsampling; alpha is {self.alpha}, "
                f"downsampling is {self.downsampling!r}"
            )
        listed = isinstance(self.vanilla, list | tuple)
        if not listed or not all(isinstance(name, str) for name in self.vanilla):
            raise InputError(f"vanilla is {self.vanilla!r}; it is a list of layer names")
        object.__setattr__(self, "vanilla", tuple(self.vanilla))


Layout = tuple[tuple[fx.Node, int], ...]  # blocks of channels: the node that made them, how many


class Plan:
    """Which channels of every tensor are low: one pass over the graph gathers the constraints, then all is settled."""

    def __init__(self, traced: fx.GraphModule, config: Config):
        self.traced, self.config = traced, config
        self.roles = {node: role(traced, node, {PadShortcut: SHORTCUT}) for node in traced.graph.nodes}
        self.layouts: dict[fx.Node, Layout | None] = {}
        self.entrances: list[tuple[fx.Node, fx.Node]] = []  # (addition, plain operand) where the stem meets an octave
        self._classes = Classes()
        convs = [node for node in traced.graph.nodes if self.roles[node] == CONV]
        if not convs:
            raise InputError(f"{type(traced).__name__} has no convolution; octaves need a convolutional network")
        self.stem, *self.convs = convs
        for node in traced.graph.nodes:
            self.layouts[node] = self._layout(node)
        for node in self._plain_outputs():
            self._mark(self.layouts[node])

    def split(self, node: fx.Node) -> Split:
        """The settled split of a node's output."""
        low = sum(self._low(block) for block in self.layouts[node])
        return Split(sum(channels for _, channels in self.layouts[node]) - low, low)

    def order(self, node: fx.Node) -> torch.Tensor:
        """Indices that bring the node's channels into octave order: the high ones of every block, then the low ones."""
        high, low, start = [], [], 0
        for block in self.layouts[node]:
            middle, stop = start + block[1] - self._low(block), start + block[1]
            high.extend(range(start, middle))
            low.extend(range(middle, stop))
            start = stop
        return torch.tensor(high + low)

    def _low(self, block: tuple[fx.Node, int]) -> int:
        node, channels = block
        return 0 if self._classes.marked(node) else split_channels(channels, self.config.alpha).low

    def _mark(self, layout: Layout | None) -> None:
        for node, _ in layout or ():
            self._classes.mark(node)

    def _fresh(self, node: fx.Node) -> Layout:
        self._classes.add(node)
        return ((node, node.meta["shape"][1]),)

    def _layout(self, node: fx.Node) -> Layout | None:
        """Channel blocks of the node's output; ties and marks are made on the way."""
        kind, inputs = self.roles[node], node.all_input_nodes
        first = self.layouts[inputs[0]] if inputs else None
        if kind == INPUT:
            layout = self._fresh(node)
            self._mark(layout)
            return layout
        if first is None:  # behind the last map
            for value in inputs:
                self._mark(self.layouts[value])
            return None
        if kind in (CONV, SHORTCUT):
            if kind == CONV and is_depthwise(self.traced.get_submodule(node.target)):
                return first
            layout = self._fresh(node)
            if node is self.stem:
                self._mark(layout)
            return layout
        if kind in (NORM, POINTWISE, POOL):
            return first
        if kind == ADD:
            if len(inputs) != 2 or node.kwargs:
                raise InputError(f"{node.name}: only the plain sum of two maps has an octave form")
            return self._tie(node, *inputs)
        if kind == CAT:
            if (*node.args[1:], *node.kwargs.values()) not in ((1,), (-3,)):
                raise InputError(f"{node.name}: only a concatenation of channels, dim 1, has an octave form")
            if None in (layouts := [self.layouts[value] for value in node.args[0]]):
                raise InputError(f"{node.name}: concatenates a map with something that is none")
            return tuple(block for layout in layouts for block in layout)
        for value in inputs:  # global pooling, flattening, a linear layer: they read plain tensors
            self._mark(self.layouts[value])
        return None

    def _tie(self, node: fx.Node, a: fx.Node, b: fx.Node) -> Layout:
        """Layout of an addition: both sides alike, the stem's side adapted on its way in."""
        stem = self.layouts.get(self.stem)
        for plain, other in ((a, b), (b, a)):
            if self.layouts[plain] == stem != self.layouts[other]:
                self.entrances.append((node, plain))
                return self.layouts[other]
        left, right = self.layouts[a], self.layouts[b]
        if right is None or [c for _, c in left] != [c for _, c in right]:
            self._mark(left)  # blocks that do not line up cannot share a split
            self._mark(right)
            return left
        for (x, _), (y, _) in zip(left, right, strict=True):
            self._classes.union(x, y)
        return left

    def _plain_outputs(self) -> list[fx.Node]:
        """Convolutions with a plain output: those named in `vanilla`, else those of the last stage (Sec. 4.1)."""
        if self.config.vanilla:
            unused = [p for p in self.config.vanilla if not any(fnmatch(node.target, p) for node in self.convs)]
            if unused:
                raise InputError(f"vanilla names {unused[0]!r}, but no convolution is called so")
            return [node for node in self.convs if any(fnmatch(node.target, p) for p in self.config.vanilla)]
        maps = [node for node in self.convs if node.meta["shape"][-1] > 1]
        smallest = max((reduction(node) for node in maps), default=1)
        tail = {node for node in maps if reduction(node) == smallest}
        entry = [node for node in maps if node not in tail and (readers := self._readers(node)) and readers <= tail]
        return [*tail, *entry]

    def _readers(self, node: fx.Node) -> set[fx.Node]:
        """The nodes that read this one's output, norms and activations looked through."""
        found = set()
        for user in node.users:
            found |= self._readers(user) if self.roles[user] in (NORM, POINTWISE) else {user}
        return found


def convert(model: nn.Module, config: Config) -> nn.Module:
    """The octave network of a CNN: a copy with the same parameters under the same names, trained or not.

    Takes images (N, 3, H, W) and returns what the model returns. `alpha = 0` is the model itself. Every layer keeps its
    mode: a network in evaluation mode gives one in evaluation mode.
    Raises InputError naming the layer that cannot be split, or the operation that nobody taught us.
    """
    model = copy.deepcopy(model)
    if config.alpha == 0 and not config.pooled_control:
        return model
    modes = {name: part.training for name, part in model.named_modules()}
    traced = trace(model, leaves=(PadShortcut,))
    plan = Plan(traced, config)
    carriers: list[tuple[str, int]] = []
    for node in list(traced.graph.nodes):
        if plan.layouts[node] is None or plan.roles[node] == INPUT:
            continue
        source = node.all_input_nodes[0]
        inp, out = plan.split(source), plan.split(node)
        pooled = plan.roles[node] in (CONV, SHORTCUT) and _is_pooled(traced, node, plan)
        if out.low or pooled:
            layer, side = str(node.target if node.op == "call_module" else node.name), node.meta["shape"][-1]
            if PROBE_PX % side:
                raise InputError(f"{layer}: {PROBE_PX} px become {side} px; octaves need maps that divide the image")
            carriers.append((layer, reduction(node) * (2 if out.low else 1)))
        if inp.low or out.low or pooled:
            _rewrite(traced, node, plan, inp, out)
    for addition, plain in plan.entrances:
        if (out := plan.split(addition)).low:
            name = f"{addition.name}_entrance"
            traced.add_submodule(name, OctIdentity(out, 1, config.downsampling))
            with traced.graph.inserting_before(addition):
                addition.replace_input_with(plain, traced.graph.call_module(name, (plain,)))
    if carriers:
        first = next(iter(traced.graph.nodes))
        traced.add_submodule("octave_input", OctaveInput(carriers, config.sizes == "pad"))
        with traced.graph.inserting_after(first):
            entry = traced.graph.call_module("octave_input", (first,))
        first.replace_all_uses_with(entry, delete_user_cb=lambda user: user is not entry)
    for name, part in traced.named_modules():  # what is new has the mode of what it lies in
        part.training = modes[name] = modes.get(name, modes[name.rpartition(".")[0]])
    traced.graph.lint()
    traced.recompile()
    return traced


def _is_pooled(traced: fx.GraphModule, node: fx.Node, plan: Plan) -> bool:
    """Whether a strided layer pools first, as every one behind the stem does in the authors' octave networks."""
    if node is plan.stem or plan.config.downsampling != AVERAGE:
        return False
    stride = traced.get_submodule(node.target).stride
    return (stride if isinstance(stride, int) else max(stride)) > 1


def _rewrite(traced: fx.GraphModule, node: fx.Node, plan: Plan, inp: Split, out: Split) -> None:
    """Replace one node by its octave form, in place."""
    config, kind = plan.config, plan.roles[node]
    source = node.all_input_nodes[0]
    if kind == ADD:
        node.op, node.target, node.kwargs = "call_function", octave_add, {}
        return
    if kind == CAT:
        node.target = octave_cat
        return
    if node.op != "call_module":
        function = node.target if node.op == "call_function" else getattr(torch.Tensor, node.target)
        args = [value for value in node.args if value is not source]
        kwargs = {key: value for key, value in node.kwargs.items() if value is not source}
        name = f"{node.name}_both"
        traced.add_submodule(name, Both(function, *args, **kwargs))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
        return
    old = traced.get_submodule(node.target)
    if isinstance(old, Both):  # an activation that serves several places
        return
    places = [other for other in traced.graph.nodes if (other.op, other.target) == ("call_module", node.target)]
    if kind in (CONV, NORM) and len(places) > 1:
        raise InputError(f"{node.target}: the layer is used twice; octaves need one layer for each place")
    if kind == CONV:
        _reorder(old, plan.order(node), plan.order(source), node.target)
        new = OctConv2d(
            old,
            inp,
            out,
            name=node.target,
            downsampling=config.downsampling,
            high_to_low=config.high_to_low,
            low_to_high=config.low_to_high,
        )
    elif kind == NORM:
        order = plan.order(node)
        for tensor in (old.weight, old.bias, old.running_mean, old.running_var):
            if tensor is not None:
                tensor.data = tensor.data[order]
        new = OctBatchNorm2d(old, out)
    elif kind == SHORTCUT:
        new = OctIdentity(out, old.stride, config.downsampling)
    else:
        new = Both(old)
    traced.set_submodule(node.target, new)


def _reorder(conv: nn.Conv2d, rows: torch.Tensor, columns: torch.Tensor, name: str) -> None:
    """Bring a kernel into octave order; only a concatenation before the layer makes a difference."""
    with torch.no_grad():
        if not torch.equal(columns, torch.arange(len(columns))) and conv.groups == 1:
            conv.weight.data = conv.weight.data[:, columns]
        elif not torch.equal(columns, torch.arange(len(columns))) and conv.groups != conv.in_channels:
            raise InputError(
                f"{name}: a group convolution behind a concatenation cannot be split; name it in `vanilla`"
            )
        if not torch.equal(rows, torch.arange(len(rows))):
            conv.weight.data = conv.weight.data[rows]
            if conv.bias is not None:
                conv.bias.data = conv.bias.data[rows]


def cost(module: nn.Module, input_size: tuple[int, int]) -> Cost:
    """Closed-form multiply-accumulates of a network from `convert`, for one image of (height, width) px (Sec. 3.2)."""
    return closed_form(module, input_size, {OctConv2d: OctConv2d.macs})


def deploy(module: nn.Module, example: torch.Tensor) -> Frozen:
    """The frozen form of a network from `convert`: inference on a CPU in float32, see `octconv_deploy.py`.

    `example` (N, 3, H, W) has the size for which the kernels are packed; outputs equal the module's in evaluation mode
    within float32 rounding. Raises InputError for a size that the network does not take.
    """
    if not isinstance(module, fx.GraphModule):  # alpha 0: an ordinary network
        return freeze(module, example)
    return OctaveFreezer(module, example).run()
