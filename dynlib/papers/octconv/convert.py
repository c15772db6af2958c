"""A network becomes an octave network, node by node of its graph; its cost, and its form for inference."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from dynlib import export
from dynlib.cost import Cost, closed_form, layer_sizes
from dynlib.errors import InputError
from dynlib.graphs import check_example, finish, probe_px, put_behind, read, reduction
from dynlib.ops import keep_channels
from dynlib.papers.octconv import layers, ops
from dynlib.papers.octconv.deploy import folded
from dynlib.papers.octconv.plan import KERNELS, Plan
from dynlib.papers.octconv.transposed import OctConvTranspose2d
from dynlib.roles import Role
from dynlib.runtime import Deployed
from dynlib.settings import check_choice, check_number
from dynlib.tracing import copied


@dataclass(frozen=True)
class Config:
    """Settings of an octave network; each value is checked and a bad one named."""

    alpha: float = 0.5  # share of low-frequency channels, [0, 1]; the paper tries 0.125 to 0.75 (Table 2)
    downsampling: str = ops.AVERAGE  # average: pool, then convolve; strided: strided convolution (Table 3)
    high_to_low: bool = True  # the path from high to low (Table 3)
    low_to_high: bool = True  # the path from low to high (Table 3)
    pooled_control: bool = False  # alpha 0 only: pool before convolving where the network strides, as the authors' code
    sizes: str = "reject"  # reject: an image whose maps do not halve is an error; pad: zeros below and to the right
    vanilla: tuple[str, ...] = ()  # names, * allowed, of layers with a plain output, in place of the last stage

    def __post_init__(self):
        check_number(self, "alpha", 0, 1)
        check_choice(self, "downsampling", (ops.AVERAGE, ops.STRIDED))
        check_choice(self, "sizes", ("reject", "pad"))
        for name in ("high_to_low", "low_to_high", "pooled_control"):
            check_choice(self, name, (True, False))
        if self.pooled_control and (self.alpha > 0 or self.downsampling != ops.AVERAGE):
            raise InputError(
                f"pooled_control is a control at alpha 0 with average downsampling; alpha is {self.alpha}, "
                f"downsampling is {self.downsampling!r}"
            )
        listed = isinstance(self.vanilla, list | tuple)
        if not listed or not all(isinstance(name, str) for name in self.vanilla):
            raise InputError(f"vanilla is {self.vanilla!r}; it is a list of layer names")
        object.__setattr__(self, "vanilla", tuple(self.vanilla))


def convert(model: nn.Module, config: Config, example: torch.Tensor | None = None) -> nn.Module:
    """The octave network of a CNN: a copy with the same parameters under the same names, trained or not.

    Takes images (N, 3, H, W), or clips (N, 3, T, H, W) where the model does, and returns what the model returns.
    `alpha = 0` is the model itself. Every layer keeps its mode: a network in evaluation mode gives one in evaluation
    mode. The model is read as it stands for an image of 224 px; where it takes other channels, or one size alone, an
    `example` (N, C, [T,] H, W) says which. Maps that do not divide the image, as behind unpadded layers, are taken for
    the example's own size if all that have a low band are even there; the network then takes no other.
    What nobody taught us, as a channel shuffle, stays as it is between plain maps. Raises InputError naming the layer
    that cannot be split, or the operation that leaves no layer with a low band.
    """
    check_example(example)
    model = copied(model)
    if config.alpha == 0 and not config.pooled_control:
        return model
    traced = read(model, example)
    names: dict[nn.Parameter, str] = {}
    for name, parameter in traced.named_parameters(remove_duplicate=False):
        if names.setdefault(parameter, name) != name:
            raise InputError(f"{name}: is {names[parameter]} too; octaves need a kernel for each place, .clone() it")
    plan = Plan(traced, config.alpha, config.vanilla)
    carriers: list[tuple[str, int]] = []
    divides = True  # the image, by every map
    for node in list(traced.graph.nodes):
        sources = node.all_input_nodes
        if None in (plan.roles[node], plan.layouts[node], *[plan.layouts[source] for source in sources[:1]]):
            continue
        if plan.roles[node] in (Role.INPUT, Role.PART, Role.SHUFFLE):
            continue
        if node in plan.vectors:
            _rewrite_vector(traced, node, plan)
            continue
        inp, out = plan.split(sources[0]), plan.split(node)
        pooled = config.downsampling == ops.AVERAGE and _is_strided(node, plan)
        if out.low or pooled:
            layer = str(node.target if node.op == "call_module" else node.name)
            divides &= _divides(layer, node, out, example is not None)
            carriers.append((layer, _multiple(node, inp, out, plan)))
        if inp.low or out.low or pooled:
            _rewrite(traced, node, plan, config, inp, out)
    for addition, plain in plan.entrances:
        if (out := plan.split(addition)).low:
            name = f"{addition.name}_entrance"
            traced.add_submodule(name, layers.OctIdentity(out, 1, config.downsampling))
            with traced.graph.inserting_before(addition):
                addition.replace_input_with(plain, traced.graph.call_module(name, (plain,)))
    if carriers:
        any_size = layers.OctaveInput(carriers, config.sizes == "pad")
        door = any_size if divides else layers.OnlySize(*probe_px(traced.graph))
        put_behind(next(iter(traced.graph.nodes)), "octave_input", door)
    traced.meta["settings"] = f"alpha {config.alpha:g}{f', vanilla {config.vanilla}' if config.vanilla else ''}"
    finish(traced)
    if not divides:
        _check_meeting(traced, example)
    return traced


def _is_strided(node: fx.Node, plan: Plan) -> bool:
    """Whether a layer behind the stem strides, and could pool instead; a stride along time counts for nothing."""
    kind = plan.roles[node]
    if kind not in (Role.CONV, Role.SHORTCUT) or node in plan.stem:
        return False
    layer = plan.traced.get_submodule(node.target)
    return layer.stride > 1 if kind == Role.SHORTCUT else max(layer.stride[-2:]) > 1 and ops.keeps_grid(layer)


def _multiple(node: fx.Node, inp: ops.Split, out: ops.Split, plan: Plan) -> int:
    """What the sides of the image are multiples of where a node's map halves, or that of a node that pools."""
    if plan.roles[node] == Role.TRANSPOSED and inp.high:  # from high to low it halves what it reads, the smaller map
        node = node.all_input_nodes[0]
    return reduction(node) * (2 if out.low else 1)


def _divides(layer: str, node: fx.Node, out: ops.Split, fixed: bool) -> bool:
    """Whether a node's map divides the image. One that does not is an error, unless the size is `fixed` and it halves.

    Of a map that divides the image, whether it halves is for the door to ask, of each image.
    """
    image, size = probe_px(node.graph), node.meta["shape"][-2:]
    if not any(pixels % side for pixels, side in zip(image, size, strict=True)):
        return True
    if fixed and not (out.low and any(side % 2 for side in size)):
        return False
    remedy = "" if fixed else ", or an `example` of a size whose maps are even"
    raise InputError(f"{layer}: {image[1]} px become {size[1]} px; octaves need maps that divide the image{remedy}")


def _check_meeting(octave: nn.Module, example: torch.Tensor) -> None:
    """Raise InputError where the two bands come out of an unpadded layer at sizes that no longer meet."""
    try:
        layer_sizes(octave, tuple(example.shape[2:]), example.shape[1])
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"example is {tuple(example.shape)}; at this size the bands do not meet: {reason}") from error


def _rewrite_vector(traced: fx.GraphModule, node: fx.Node, plan: Plan) -> None:
    """Bring a layer of a gate, which stays plain, into the order of the vectors that it reads and writes."""
    kind, source = plan.roles[node], node.all_input_nodes[0]
    if kind == Role.GLOBAL_POOL and plan.split(source).low:
        node.op, node.target, node.kwargs = "call_function", layers.octave_mean, {}
        node.args = (source, len(node.meta["shape"]) > 2)
    elif kind in (Role.CONV, Role.LINEAR):
        _reorder(traced.get_submodule(node.target), plan.order(node), plan.order(source), node.target)
    elif kind == Role.NORM:
        keep_channels(traced.get_submodule(node.target), plan.order(node))


def _rewrite(traced: fx.GraphModule, node: fx.Node, plan: Plan, config: Config, inp: ops.Split, out: ops.Split) -> None:
    """Replace one node by its octave form, in place."""
    kind, source = plan.roles[node], node.all_input_nodes[0]
    if kind == Role.ADD:
        node.op, node.target, node.kwargs = "call_function", ops.octave_add, {}
        return
    if kind == Role.MUL:
        gate, pair = sorted(node.all_input_nodes, key=plan.vectors.__contains__, reverse=True)
        node.op, node.target, node.args, node.kwargs = "call_function", layers.octave_gate, (pair, gate), {}
        return
    if kind == Role.CAT:
        node.target = ops.octave_cat
        return
    if node.op != "call_module":
        function = node.target if node.op == "call_function" else getattr(torch.Tensor, node.target)
        args = [value for value in node.args if value is not source]
        kwargs = {key: value for key, value in node.kwargs.items() if value is not source}
        name = f"{node.name}_both"
        traced.add_submodule(name, ops.Both(function, *args, **kwargs))
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
        return
    old = traced.get_submodule(node.target)
    if isinstance(old, ops.Both | layers.OctStochasticDepth):  # an activation that serves several places
        return
    places = [other for other in traced.graph.nodes if (other.op, other.target) == ("call_module", node.target)]
    if kind in (*KERNELS, Role.NORM) and len(places) > 1:
        raise InputError(f"{node.target}: the layer is used twice; octaves need one layer for each place")
    if kind in KERNELS:
        _reorder(old, plan.order(node), plan.order(source), node.target)
        octave_form = OctConvTranspose2d if kind == Role.TRANSPOSED else ops.OctConv2d
        how = {name: getattr(config, name) for name in ("downsampling", "high_to_low", "low_to_high")}
        new = octave_form(old, inp, out, name=node.target, **how)
    elif kind == Role.NORM:
        keep_channels(old, plan.order(node))
        new = ops.OctBatchNorm2d(old, out)
    elif kind == Role.SHORTCUT:
        if not torch.equal(order := plan.order(source), torch.arange(len(order))):
            raise InputError(f"{node.target}: a shortcut behind a concatenation has no octave form")
        new = layers.OctIdentity(out, old.stride, config.downsampling, old.before)
    elif isinstance(old, StochasticDepth):
        new = layers.OctStochasticDepth(old)
    else:
        new = ops.Both(old)
    traced.set_submodule(node.target, new)


def _reorder(layer: nn.Module, rows: torch.Tensor, columns: torch.Tensor, name: str) -> None:
    """Bring the kernel of a convolution or linear layer into octave order; only a concatenation makes a difference."""
    groups = getattr(layer, "groups", 1)
    into, out_of = (1, 0) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else (0, 1)
    if not torch.equal(columns, torch.arange(len(columns))) and groups == 1:
        layer.weight.data = layer.weight.data.index_select(out_of, columns.to(layer.weight.device))
    elif not torch.equal(columns, torch.arange(len(columns))) and groups != layer.in_channels:
        raise InputError(f"{name}: a group convolution behind a concatenation cannot be split; name it in `vanilla`")
    if not torch.equal(rows, torch.arange(len(rows))):
        layer.weight.data = layer.weight.data.index_select(into, rows.to(layer.weight.device))
        if layer.bias is not None:
            layer.bias.data = layer.bias.data[rows]


def cost(module: nn.Module, input_size: tuple[int, ...], channels: int | None = None) -> Cost:
    """Closed-form multiply-accumulates of a network from `convert` (Sec. 3.2), for one image of (height, width) px.

    Of a clip, `input_size` is (frames, height, width); `channels` as in `cost.closed_form`.
    """
    return closed_form(module, input_size, channels)


def deploy(
    module: nn.Module,
    example: torch.Tensor,
    *,
    engine: str = "onnxruntime",
    threads: int | None = None,
    calibrate: Iterable[torch.Tensor] | None = None,
) -> Deployed:
    """A network from `convert` for inference on a CPU in float32, as one ONNX graph, see `dynlib.runtime`.

    `example` (N, C, H, W) has the size of the images that it will take, any N; outputs equal the module's in evaluation
    mode within float32 rounding. With `calibrate`, a few batches of images, it is in int8, see `dynlib.quantise`.
    Raises InputError for a size that the network does not take, and names what cannot be exported.
    """
    network = folded(module) if isinstance(module, fx.GraphModule) else module  # alpha 0: an ordinary network
    return export.single("octconv", network, example, engine, threads, calibrate)
