"""Exits on intermediate layers, the idea that stages replace: Teerapittayanon et al., BranchyNet (arXiv 1709.01686).

`layerwise` puts a head behind each map size of any network, and returns `Exits` as a network with stages does, so that
the same loss trains it and the same rules stop it.
"""

import copy
from collections import Counter

import torch
from torch import fx, nn

from dynlib.cost import count, example
from dynlib.errors import InputError
from dynlib.papers.s2dnas_layers import ExitRule
from dynlib.papers.s2dnas_owners import Plan


def layerwise(model: nn.Module, exit_thresholds: tuple[float, ...] = (0.9,)) -> fx.GraphModule:
    """A copy of a network with a further exit behind the last node of each map size that has two convolutions or more.

    The last exit is the network's own. Each new head is global average pooling and one linear layer, freshly drawn.
    Raises InputError where the network has no such maps, or for thresholds in another number.
    """
    model = copy.deepcopy(model)
    modes = {name: part.training for name, part in model.named_modules()}
    plan = Plan(model)
    traced, final = plan.traced, plan.head
    last: dict[tuple[int, ...], fx.Node] = {}
    convolutions: Counter = Counter()
    for node in traced.graph.nodes:
        shape = node.meta.get("shape")
        if plan.layouts[node] is not None and node is not final and shape is not None and len(shape) == 4:
            last[shape[2:]] = node
            layer = traced.get_submodule(node.target) if node.op == "call_module" else None
            convolutions[shape[2:]] += isinstance(layer, nn.Conv2d)
    places = [node for size, node in last.items() if convolutions[size] > 1 and size != (1, 1)][:-1]
    if not places:
        raise InputError(f"{type(model).__name__}: all convolutions have one map size; there is no place for an exit")
    if len(exit_thresholds) not in (1, len(places)):
        raise InputError(f"exit_thresholds is {exit_thresholds}; this network takes 1 number or {len(places)}")
    own = traced.get_submodule(final.target)
    device = own.weight.device
    heads, exits = nn.ModuleList(), []
    for node in places:
        linear = nn.Linear(node.meta["shape"][1], own.out_features, device=device)
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear))
    traced.add_module("heads", heads)
    for number, node in enumerate(places):
        with traced.graph.inserting_after(node):
            exits.append(traced.graph.call_module(f"heads.{number}", (node,)))
    traced.add_submodule("exit_rule", ExitRule(exit_thresholds * (len(places) if len(exit_thresholds) == 1 else 1)))
    traced.exit_rule.to(device)
    with traced.graph.inserting_after(final):
        stacked = traced.graph.call_function(torch.stack, ([*exits, final],))
    with traced.graph.inserting_after(stacked):
        chosen = traced.graph.call_module("exit_rule", (stacked,))
    final.replace_all_uses_with(chosen, delete_user_cb=lambda user: user is not stacked)
    for name, part in traced.named_modules():  # what is new has the mode of what it lies in
        part.training = modes[name] = modes.get(name, modes[name.rpartition(".")[0]])
    traced.graph.lint()
    traced.recompile()
    return traced


def exit_macs(model: nn.Module, size: int | tuple[int, int]) -> list[int]:
    """Multiply-accumulates up to each exit of a network from `layerwise` or an `MSDNet`, all heads on the way included.

    Both run in order: what stands before a head, the head, what follows.
    """
    device = next(model.parameters()).device
    layers = count(model, example(size).to(device)).by_layer
    spent, found = 0, {}
    for name, macs in layers.items():
        spent += macs
        if name.startswith("heads."):
            found[name.split(".")[1]] = spent
    exits = len(model.exit_rule.thresholds) + 1
    return [*list(found.values())[: exits - 1], spent]
