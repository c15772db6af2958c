"""Every channel of a network gets an owner stage, and every stage a head; costs, phases, choices."""

from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, prod

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dynlib.cost import Cost, closed_form, layer_sizes
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.graphs import finish, put_behind
from dynlib.papers.s2dnas.exits import Outcome, choices, collect, leave, set_thresholds
from dynlib.papers.s2dnas.layers import ExitRule, Heads, PiecePick, Pieces, PieceShortcut, in_pieces
from dynlib.papers.s2dnas.owners import Plan, columns, owners
from dynlib.papers.s2dnas.rivals import MSDNet, exit_macs, layerwise
from dynlib.roles import Role
from dynlib.settings import check_choice
from dynlib.tracing import copied
from dynlib.train import Phase

NESTED = ((0, 2, 4, 8),)  # the fixed cuts that a search is compared with
FORMS = ("stages", "layers", "msdnet")


@dataclass(frozen=True)
class Config:
    """Settings of a network with stages; each value is checked and a bad one named."""

    # One row for all map sizes, or one a size, in groups of channels, whose number is the last of each; [0, 8] is one
    # stage. A cut between two channels goes to the nearest: [0, 2, 4, 9] of 16 channels is 0, 4, 7, 16.
    cuts: tuple[tuple[int, ...], ...] = NESTED
    reuse: tuple[tuple[int, ...], ...] | None = None  # rows as in cuts: m_12, m_13, m_23; None: everything is reused
    exit_thresholds: tuple[float, ...] = (0.9,)  # one for all exits or one each; 0 stops all images, above 1 none
    form: str = "stages"  # or a rival: exits on layers, or msdnet in the network's place

    def __post_init__(self):
        check_choice(self, "form", FORMS)
        rows = _rows("cuts", self.cuts, "such as [[0, 2, 4, 8]]")
        for row in rows:
            rising = len(row) > 1 and row[0] == 0 and all(a < b for a, b in pairwise(row))
            if not rising or (len(row), row[-1]) != (len(rows[0]), rows[0][-1]):
                raise InputError(
                    f"cuts has {list(row)}; a row rises from 0 to the number of channel groups, the same in each row"
                )
        object.__setattr__(self, "cuts", rows)
        if self.reuse is not None:
            bits = _rows("reuse", self.reuse, "such as [[1, 1, 1]], or null for everything")
            wanted = self.stages * (self.stages - 1) // 2
            for row in bits:
                if len(row) != wanted or not set(row) <= {0, 1}:
                    raise InputError(f"reuse has {list(row)}; {self.stages} stages need {wanted} of 0 and 1 in a row")
            object.__setattr__(self, "reuse", bits)
        values, exits = self.exit_thresholds, self.stages - 1
        if not isinstance(values, list | tuple) or len(values) not in (1, exits):
            raise InputError(f"exit_thresholds is {values!r}; it has 1 number, or {exits}: one an exit before the last")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value >= 0):
                raise InputError(f"exit_thresholds has {value!r}; it is a probability from 0 up, above 1 for never")
        object.__setattr__(self, "exit_thresholds", tuple(map(float, values)))
        if self.form != "stages" and (self.cuts, self.reuse, len(values)) != (NESTED, None, 1):
            raise InputError(
                f"form is {self.form!r}, which has no stages: leave out cuts, reuse and all thresholds but one"
            )

    @property
    def stages(self) -> int:
        """Number of stages, and of exits."""
        return len(self.cuts[0]) - 1

    def for_groups(self, count: int) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """Cuts and reuse, a row each for `count` groups of map sizes. Raises InputError for another number of rows."""
        full = ((1,) * (self.stages * (self.stages - 1) // 2),)
        found = []
        for name, rows in (("cuts", self.cuts), ("reuse", self.reuse or full)):
            if len(rows) not in (1, count):
                raise InputError(f"{name} has {len(rows)} rows; this network takes 1, or {count}: one a map size")
            found.append(rows * count if len(rows) == 1 else rows)
        return tuple(found)


def _rows(name: str, value: object, hint: str) -> tuple[tuple[int, ...], ...]:
    listed = isinstance(value, list | tuple) and value and all(isinstance(row, list | tuple) for row in value)
    if not listed or not all(type(item) is int for row in value for item in row):
        raise InputError(f"{name} is {value!r}; it is a list of rows of whole numbers, {hint}")
    return tuple(tuple(row) for row in value)


# ----------------------------------------------------------------------------------------------------- transformation


def convert(model: nn.Module, config: Config, example: Tensor | None = None) -> nn.Module:
    """The network with stages: a copy with the same kernels, masked so that no stage depends on a later one.

    Takes images (N, C, H, W) and returns `Exits`. The model is read as it stands for an image of 224 px; where it takes
    one size alone, an `example` says which. Its last linear layer becomes one a stage. With one stage the logits
    are the network's own. Every layer keeps its mode. Of a rival's `form` it is that rival, see `FORMS`; MSDNet has
    nothing of the network but the number of classes.
    Raises InputError naming the layer that cannot be cut, or the operation that nobody taught us.
    """
    if config.form == "layers":
        return layerwise(model, config.exit_thresholds)
    if config.form == "msdnet":
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        return MSDNet(num_classes=last.out_features, exit_thresholds=config.exit_thresholds).to(last.weight.device)
    model = copied(model)
    plan = Plan(model, example)
    traced = plan.traced
    for node, kind in plan.roles.items():
        if plan.layouts[node] is not None and node is not plan.head:
            node.meta["layout"] = plan.channel_groups(node)
        if kind not in (Role.CONV, Role.LINEAR, Role.SHORTCUT):
            continue
        old = traced.get_submodule(node.target)
        if node is plan.head:
            new = Heads(old, config.stages)
        elif kind == Role.SHORTCUT:
            new = PieceShortcut(old.stride, old.before / max(old.new_channels, 1))
        elif kind == Role.CONV and 1 < old.groups == old.in_channels:  # depthwise: keeps stages apart as it is
            continue
        else:
            new = in_pieces(old)
        traced.set_submodule(node.target, new)
    rule = ExitRule(config.exit_thresholds, config.stages)
    put_behind(plan.head, "exit_rule", rule.to(next(model.parameters()).device))
    traced.meta["groups"] = len(plan.groups)
    finish(traced)
    recut(traced, config)
    return traced


def recut(model: fx.GraphModule, config: Config) -> None:
    """Give a network from `convert` other cuts and reuse in place, with as many stages; weights and thresholds stay.

    Raises InputError for another number of stages, and where the layers cannot be cut so.
    """
    cuts, reuse = config.for_groups(model.meta["groups"])
    model.meta["settings"] = f"cuts {cuts}, reuse {reuse}"
    for node in model.graph.nodes:
        if "layout" in node.meta:
            node.meta["owners"], node.meta["made_at"] = owners(node.name, node.meta["layout"], cuts)
    for node in model.graph.nodes:
        if node.op != "call_module":
            continue
        layer, source = model.get_submodule(node.target), node.all_input_nodes[0].meta
        if isinstance(layer, Heads):
            if len(layer) != config.stages:
                raise InputError(f"cuts make {config.stages} stages; this network has {len(layer)} heads, convert anew")
            everything = ((1,) * (config.stages * (config.stages - 1) // 2),) * model.meta["groups"]
            layer.cut(columns(source["owners"], source["made_at"], everything, config.stages))
        elif isinstance(layer, Pieces):
            rows = owned(node, config.stages)
            layer.cut(rows, columns(source["owners"], source["made_at"], reuse, config.stages))
        elif isinstance(layer, PiecePick | PieceShortcut):
            layer.cut(owned(node, config.stages), owned(node.all_input_nodes[0], config.stages))


def owned(node: fx.Node, stages: int) -> list[Tensor]:
    """Channels (indices, int64) of a node's output that each stage owns."""
    return [(node.meta["owners"] == stage).nonzero().flatten() for stage in range(stages)]


# ------------------------------------------------------------------------------------------------------------- hooks


def summed_loss(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    done: float,
) -> Tensor:
    """Cross-entropy of every exit, summed."""
    exits = network(images).exits
    return sum(F.cross_entropy(y, targets) for y in exits)  # eq-s2dnas-loss


def phases(config: Config) -> tuple[Phase, ...]:
    """The training schedule: all exits at once; test images wait for the end."""
    return (Phase("stages", summed_loss, watch=lambda network, valid: {}),)


def choose(model: nn.Module, held_out: Batches, valid: Batches) -> dict[str, float | list | dict]:
    """The exit rules' thresholds, found on `held_out` and applied to `valid`; those of the first budget stay in force.

    `exit_macs` is the cumulative cost of each exit, `rules` what `exits.choices` returns; the rest is as from
    `evaluate`, at the thresholds in force, and `top1` the accuracy under early exits.
    """
    costs, seen = _exit_costs(model, valid), collect(model, valid)
    rules = choices(collect(model, held_out), seen, costs)
    set_thresholds(model, rules["budget"][0]["thresholds"])
    found = leave(*seen, costs, model.exit_rule.thresholds.tolist())
    return {"top1": found.top1, "exit_macs": costs, "rules": rules} | _figures(found)


def evaluate(model: nn.Module, valid: Batches) -> dict[str, float | list[float | None]]:
    """Figures at the network's present thresholds, whatever chose them.

    `exit_top1` of each exit over all images, `exit_share` of the images that leave there, `leaver_top1` over those
    (None: nobody leaves), and `expected_macs`, the cost of the average image.
    """
    return _figures(leave(*collect(model, valid), _exit_costs(model, valid), model.exit_rule.thresholds.tolist()))


def _exit_costs(model: nn.Module, batches: Batches) -> list[int]:
    return list(macs_by_choice(model, tuple(next(batches.epoch(None))[0].shape[-2:])).values())


def _figures(found: Outcome) -> dict[str, float | list[float | None]]:
    return {
        "exit_top1": list(found.exit_top1),
        "exit_share": list(found.shares),
        "leaver_top1": list(found.leaver_top1),
        "expected_macs": found.macs,
    }


# -------------------------------------------------------------------------------------------------------------- cost


def _macs(model: fx.GraphModule, input_size: int | tuple[int, int]) -> dict[str, list[int]]:
    """Layer -> multiply-accumulates of each stage's part: K K H W d_j (sum of the d_i that j reads)."""
    sizes = layer_sizes(model, input_size)
    stages = len(model.exit_rule.thresholds) + 1
    found = {}
    for node in model.graph.nodes:
        layer = model.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, Heads):
            found[node.target] = layer.stage_macs()
        elif isinstance(layer, Pieces):
            found[node.target] = layer.stage_macs(prod(sizes[node.target][1:]))
        elif isinstance(layer, nn.Conv2d):  # depthwise: each output has its own input
            each = prod(sizes[node.target][1:]) * layer.weight[0].numel()
            found[node.target] = [each * len(own) for own in owned(node, stages)]
    return found


def macs_by_choice(
    model: nn.Module,
    input_size: int | tuple[int, int],
) -> dict[str, int]:
    """MACs of an image that leaves at each exit, with all heads passed."""
    if has_stages(model):
        layers = torch.tensor(list(_macs(model, input_size).values()))
        costs = layers.sum(0).cumsum(0).tolist()  # (E,), eq-s2dnas-cost
    else:
        costs = exit_macs(model, input_size)
    return {f"exit {number}": macs for number, macs in enumerate(costs, 1)}


def has_stages(model: nn.Module) -> bool:
    """Whether a network is one of stages, not a rival."""
    return any(isinstance(layer, Heads) for layer in model.modules())


def cost(module: nn.Module, input_size: int | tuple[int, int]) -> Cost:
    """Closed-form multiply-accumulates of all exits of a network from `convert`, for one image of (height, width) px.

    `params` are those with an effect: what a mask or a head's stage switches off is not there.
    """
    if not has_stages(module):
        return closed_form(module, input_size)
    by_layer = {name: sum(macs) for name, macs in _macs(module, input_size).items()}
    params = sum(p.numel() for p in module.parameters())
    for layer in module.modules():
        if isinstance(layer, Pieces):
            params -= layer.weight.numel() - sum(layer.stage_macs(1))
        elif isinstance(layer, Heads):
            params -= sum(head.weight.numel() for head in layer) - sum(layer.stage_macs())
    return Cost(sum(by_layer.values()), params, by_layer)
