"""The rivals: exits on intermediate layers, which stages replace, and MSDNet, made by hand.

`layerwise` (Teerapittayanon et al., BranchyNet, arXiv 1709.01686) puts a head behind each map size of any network, and
returns `Exits` as a network with stages does, so that the same loss trains it and the same rules stop it.

`MSDNet` (Huang et al., "Multi-Scale Dense Networks", ICLR 2018, arXiv 1703.09844) is the form for 32 px. Exits on early
layers see no coarse features; so every layer here keeps maps at three scales from the start, densely connected, and
each exit reads the coarsest. Written from the paper and the settings of its public code, whose costs the tests check:
growth 6 at the finest scale, channels in proportion 1, 2, 4, bottlenecks, and with the depth the finer scales are
dropped, a third of the layers each, where a transition halves the channels.
"""

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torchvision.ops import Conv2dNormActivation as Layer

from dynlib.cost import count, example
from dynlib.errors import InputError
from dynlib.graphs import finish, put_behind
from dynlib.ops import kaiming
from dynlib.papers.s2dnas.layers import ExitRule, Exits
from dynlib.papers.s2dnas.owners import Plan

FACTORS = (1, 2, 4)  # channels of the scales, fine to coarse, and widths of their bottlenecks


def _bottleneck(c_in: int, c_out: int, factor: int, stride: int = 1) -> nn.Sequential:
    inner = min(c_in, factor * c_out)
    return nn.Sequential(Layer(c_in, inner, 1), Layer(inner, c_out, 3, stride))


class MultiScaleLayer(nn.Module):
    """New channels at every scale from `first_out` on: half from the scale itself, half from the next finer one.

    Maps (N, channels * FACTORS[i], H / 2^i, W / 2^i) of the scales from `first_in` on; each keeps what it had.
    """

    def __init__(self, channels: int, growth: int, first_in: int, first_out: int):
        super().__init__()
        self.first_in, self.first_out = first_in, first_out
        self.same, self.down = nn.ModuleDict(), nn.ModuleDict()
        for i in range(first_out, len(FACTORS)):
            new = growth * FACTORS[i]
            if i > first_in:
                new //= 2
                self.down[str(i)] = _bottleneck(channels * FACTORS[i - 1], new, FACTORS[i - 1], stride=2)
            self.same[str(i)] = _bottleneck(channels * FACTORS[i], new, FACTORS[i])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the scales from `first_out` on, grown."""
        grown = []
        for i in range(self.first_out, len(FACTORS)):
            x = maps[i - self.first_in]
            finer = [self.down[str(i)](maps[i - 1 - self.first_in])] if str(i) in self.down else []
            grown.append(torch.cat([x, *finer, self.same[str(i)](x)], 1))
        return grown


class Transition(nn.Module):
    """Halves the channels of each scale from `first` on."""

    def __init__(self, channels: int, kept: int, first: int):
        super().__init__()
        self.scales = nn.ModuleList(Layer(channels * f, kept * f, 1) for f in FACTORS[first:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps with fewer channels."""
        return [layer(x) for layer, x in zip(self.scales, maps, strict=True)]


class Stem(nn.Module):
    """The image at three scales."""

    def __init__(self, channels: int):
        super().__init__()
        widths = [3, *(channels * f for f in FACTORS)]
        self.scales = nn.ModuleList(Layer(widths[i], widths[i + 1], 3, 2 if i else 1) for i in range(len(FACTORS)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> maps at full, half and quarter resolution."""
        maps = []
        for layer in self.scales:
            x = layer(x)
            maps.append(x)
        return maps


class MSDNet(nn.Module):
    """MSDNet for small images: (N, 3, H, W) -> `Exits`, an exit a block, meant for 32 px.

    Args:
        blocks: exits; the k-th block has k layers, which is the form for batches under a budget.
        num_classes: outputs of each.
        exit_thresholds: probabilities, one an exit before the last, or one for all.

    Raises InputError for no block, or thresholds in another number.
    """

    def __init__(
        self,
        blocks: int = 5,
        num_classes: int = 10,
        *,
        channels: int = 16,
        growth: int = 6,
        exit_thresholds: tuple[float, ...] = (0.9,),
    ):
        super().__init__()
        if blocks < 1:
            raise InputError(f"blocks is {blocks}; it is at least 1")
        depths = range(1, blocks + 1)
        third = -(-sum(depths) // len(FACTORS))  # layers between two scales' ends
        self.stem = Stem(channels)
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList()
        number = 0
        for depth in depths:
            layers = []
            for _ in range(depth):
                first_in, first_out = max(0, number - 1) // third, number // third
                layers.append(MultiScaleLayer(channels, growth, first_in, first_out))
                channels += growth
                if first_out > first_in:
                    layers.append(Transition(channels, channels // 2, first_out))
                    channels //= 2
                number += 1
            self.blocks.append(nn.Sequential(*layers))
            head = (Layer(channels * FACTORS[-1], 128, 3, 2), Layer(128, 128, 3, 2))
            self.heads.append(nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes)))
        self.exit_rule = ExitRule(exit_thresholds, blocks)
        kaiming(self)

    def forward(self, x: Tensor) -> Exits:
        """Logits of every exit."""
        maps, exits = self.stem(x), []
        for block, head in zip(self.blocks, self.heads, strict=True):
            maps = block(maps)
            exits.append(head(maps[-1]))
        return self.exit_rule(torch.stack(exits))


def layerwise(model: nn.Module, exit_thresholds: tuple[float, ...] = (0.9,)) -> fx.GraphModule:
    """A copy of a network with a further exit behind the last node of each map size that has two convolutions or more.

    The last exit is the network's own. Each new head is global average pooling and one linear layer, freshly drawn.
    Raises InputError where the network has no such maps, or for thresholds in another number.
    """
    model = copy.deepcopy(model)
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
    own = traced.get_submodule(final.target)
    device = own.weight.device
    traced.add_module("heads", nn.ModuleList())
    exits = []
    for number, node in enumerate(places):
        linear = nn.Linear(node.meta["shape"][1], own.out_features, device=device)
        traced.heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear))
        with traced.graph.inserting_after(node):
            exits.append(traced.graph.call_module(f"heads.{number}", (node,)))
    with traced.graph.inserting_after(final):
        stacked = traced.graph.call_function(torch.stack, ([*exits, final],))
    final.replace_all_uses_with(stacked, delete_user_cb=lambda user: user is not stacked)
    put_behind(stacked, "exit_rule", ExitRule(exit_thresholds, len(places) + 1).to(device))
    return finish(traced)


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
