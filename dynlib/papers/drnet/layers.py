"""Parts of a dynamic resolution network: sizes, routing, the straight-through gate, one batch norm a resolution.

The resolution in force is an argument of the classifier's graph and travels through it to every batch norm. Nothing
remembers it, so nothing can remember the wrong one.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dynlib.errors import InputError
from dynlib.graphs import finish, trace
from dynlib.networks import Network
from dynlib.ops import evaluating

Size = tuple[int, int]  # height and width in pixels
Classify = Callable[[Tensor, int], Tensor]  # images (N, 3, H, W) and a candidate to logits (N, C)


class Output(NamedTuple):
    """What a dynamic resolution network returns."""

    logits: Tensor  # (N, C)
    choice: Tensor  # (N,) int64, index of the candidate at which each image was classified
    z: Tensor | None = None  # (N, m) logits of the predictor; None where it was not asked
    gate: Tensor | None = None  # (N, m) one-hot, with a gradient to z; in training only
    costs: tuple[float, ...] | None = None  # MACs at each candidate, share of those at full size; in training only


def px(size: Size) -> str:
    """A size as one writes it: 224, or 480x640."""
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"


def candidate_sizes(size: Size, candidates: Sequence[float]) -> list[Size]:
    """Height and width of every candidate; a share is taken for the fraction that it was rounded from (to 0.001 px).

    Raises InputError where a share of a side is no whole number of pixels.
    """
    for share in candidates:
        for side in size:
            if abs(side * share - round(side * share)) > 1e-3 or round(side * share) < 1:
                where = f"an image of {size[0]}x{size[1]} px"
                raise InputError(
                    f"candidate {share:g} of {where} is {side * share:g} px; allowed: shares that give whole pixels"
                )
    return [(round(size[0] * share), round(size[1] * share)) for share in candidates]


def thumbnail_size(size: Size, share: float) -> Size:
    """Height and width of the predictor's input, rounded to whole pixels."""
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def resize(images: Tensor, size: Size, antialias: bool) -> Tensor:
    """Images (N, 3, H, W) at another size, bilinear, in the memory layout they had; at their own size as they are."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=antialias)


def straight_through(z: Tensor, tau: float) -> Tensor:
    """The gate h (N, m) for logits z (N, m): a one-hot draw with a softmax's gradient.

    Forward one_hot(argmax(log p + g)), backward softmax((log p + g) / tau), with
    p = softmax(z) and Gumbel noise g. Eq. 11 prints tau outside of one exponential.
    """
    return F.gumbel_softmax(z.float(), tau, hard=True)  # eq-drnet-gate


def combine(h: Tensor, each: Sequence[Tensor]) -> Tensor:
    """sum_j h_j y_j: logits (N, C) from the gate (N, m) and those of each candidate."""
    pairs = zip(h.unbind(1), each, strict=True)
    return sum(h_j[:, None] * y_j for h_j, y_j in pairs)  # eq-drnet-combine


def route(images: Tensor, choice: Tensor, classify: Classify) -> Tensor:
    """Logits (N, C) where every image is classified once, equal choices together.

    They come in the images' order. `choice` (N,) are the candidates' indices;
    `classify(images, j)` resizes to candidate j and classifies.
    """
    used = choice.unique().tolist() or [0]
    if len(used) == 1:
        return classify(images, used[0])
    rows = [(choice == j).nonzero().flatten() for j in used]
    pairs = zip(rows, used, strict=True)
    parts = [classify(images[index], j) for index, j in pairs]
    return torch.cat(parts)[torch.cat(rows).argsort()]


class ResolutionNorm(nn.Module):
    """One batch norm for each candidate: own mean, variance, scale and shift.

    With `count` 1 all share it. A single image in training mode is normalised by the
    running statistics and leaves them alone: a bucket of one would make noise of them.
    """

    def __init__(self, norm: _BatchNorm, count: int):
        super().__init__()
        self.sets = nn.ModuleList(copy.deepcopy(norm) for _ in range(count))

    def at(self, resolution: int) -> _BatchNorm:
        """The batch norm of one candidate."""
        return self.sets[resolution if len(self.sets) > 1 else 0]

    def forward(self, x: Tensor, resolution: int) -> Tensor:
        """Maps (N, C, ...) of images at candidate `resolution`, normalised."""
        norm = self.at(resolution)
        if norm.training and len(x) < 2 and norm.track_running_stats:
            with evaluating(norm):
                return norm(x)
        return norm(x)  # eq-drnet-norm


def with_resolutions(model: nn.Module, count: int) -> fx.GraphModule:
    """The network as (images, resolution) -> what it returned, with `count` sets of every batch norm; shares weights.

    Raises InputError for a network of clips, for one without batch norm, and for one with auxiliary classifiers.
    """
    name = type(model).__name__
    if any(isinstance(m, nn.Conv3d) for m in model.modules()):
        raise InputError(f"{name} takes clips; dynamic resolution takes networks of images")
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise InputError(f"{name} has no batch norm; allowed: networks with one, which each resolution gets a set of")
    traced = _graph(model)
    images = next(node for node in traced.graph.nodes if node.op == "placeholder")
    *_, answer = traced.graph.nodes
    if not isinstance(logits := answer.args[0], fx.Node) or isinstance(logits.target, type):  # a tuple, named or not
        kind = type(logits).__name__
        raise InputError(f"{name} returns a {kind}; allowed: a network that returns logits, so wrap it in one")
    if loose := [node for node in traced.graph.nodes if node.target is F.batch_norm]:
        raise InputError(f"{loose[0].name}: F.batch_norm is no layer, so resolutions have no sets of it; use a module")
    with traced.graph.inserting_after(images):
        resolution = traced.graph.placeholder("resolution")
    places = _calls(traced, _BatchNorm)
    norms = {node.target: traced.get_submodule(node.target) for node in places}
    for target, norm in norms.items():
        traced.set_submodule(target, ResolutionNorm(norm, count))
    for node in places:
        node.args, node.kwargs = (node.all_input_nodes[0], resolution), {}
    return finish(traced)


def _graph(model: nn.Module) -> fx.GraphModule:
    """The graph of a network; one that another method made is a graph already, and its layers stay whole."""
    if not isinstance(model, Network):
        return trace(model, leaves=(_BatchNorm,))
    traced = Network(model, copy.deepcopy(model.graph), class_name=type(model).__name__)
    traced.meta["settings"] = model.settings()
    traced.meta["modes"] = {path: part.training for path, part in model.named_modules()}
    return traced


def at_resolution(classifier: fx.GraphModule, resolution: int) -> fx.GraphModule:
    """The ordinary network that classifies at one candidate, images -> logits; it shares the classifier's weights."""
    single = fx.GraphModule(classifier, copy.deepcopy(classifier.graph), class_name=type(classifier).__name__)
    for node in _calls(single, ResolutionNorm):
        node.args = node.args[:1]
    for target in {node.target for node in single.graph.nodes if node.op == "call_module"}:
        if isinstance(norms := single.get_submodule(target), ResolutionNorm):
            single.set_submodule(target, norms.at(resolution))
    _, resolution_in = (node for node in single.graph.nodes if node.op == "placeholder")
    single.graph.erase_node(resolution_in)
    single.graph.lint()
    single.recompile()
    return single


def _calls(graph: fx.GraphModule, kind: type[nn.Module]) -> list[fx.Node]:
    """Nodes that call a module of this kind."""
    nodes = (node for node in graph.graph.nodes if node.op == "call_module")
    return [node for node in nodes if isinstance(graph.get_submodule(node.target), kind)]
