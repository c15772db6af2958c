"""MSDNet, the hand-made rival: Huang et al., "Multi-Scale Dense Networks", ICLR 2018 (arXiv 1703.09844), for 32 px.

Exits on early layers see no coarse features; so every layer here keeps maps at three scales from the start, densely
connected, and each exit reads the coarsest. Written from the paper and the settings of its public code, whose costs the
tests check: growth 6 at the finest scale, channels in proportion 1, 2, 4, bottlenecks, and with the depth the finer
scales are dropped, a third of the layers each, where a transition halves the channels.
"""

import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.papers.s2dnas_layers import ExitRule, Exits

FACTORS = (1, 2, 4)  # channels of the scales, fine to coarse, and widths of their bottlenecks


def _layer(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


def _bottleneck(c_in: int, c_out: int, factor: int, stride: int = 1) -> nn.Sequential:
    inner = min(c_in, factor * c_out)
    return nn.Sequential(_layer(c_in, inner, 1), _layer(inner, c_out, 3, stride))


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
        self.scales = nn.ModuleList(_layer(channels * f, kept * f, 1) for f in FACTORS[first:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps with fewer channels."""
        return [layer(x) for layer, x in zip(self.scales, maps, strict=True)]


class Stem(nn.Module):
    """The image at three scales."""

    def __init__(self, channels: int):
        super().__init__()
        widths = [3, *(channels * f for f in FACTORS)]
        self.scales = nn.ModuleList(_layer(widths[i], widths[i + 1], 3, 2 if i else 1) for i in range(len(FACTORS)))

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
        blocks: exits.
        num_classes: outputs of each.
        base: layers of the first block.
        step: of the blocks behind it: the i-th of them has `step * i + 1` layers where `linear`, else `step`.
        linear: blocks grow (for batches under a budget), or are alike (for stopping at any time).
        exit_thresholds: probabilities, one an exit before the last, or one for all.

    Raises:
        InputError: there is no block or no layer, or thresholds in another number.
    """

    def __init__(
        self,
        blocks: int = 5,
        num_classes: int = 10,
        *,
        base: int = 1,
        step: int = 1,
        linear: bool = True,
        channels: int = 16,
        growth: int = 6,
        exit_thresholds: tuple[float, ...] = (0.9,),
    ):
        super().__init__()
        if min(blocks, base, step) < 1:
            raise InputError(f"blocks is {blocks}, base {base}, step {step}; each is at least 1")
        if len(exit_thresholds) not in (1, blocks - 1):
            raise InputError(f"exit_thresholds is {exit_thresholds}; {blocks} exits need 1 or {blocks - 1} numbers")
        depths = [base, *(step * i + 1 if linear else step for i in range(1, blocks))]
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
            head = (_layer(channels * FACTORS[-1], 128, 3, 2), _layer(128, 128, 3, 2))
            self.heads.append(nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes)))
        self.exit_rule = ExitRule(exit_thresholds * (blocks - 1 if len(exit_thresholds) == 1 else 1))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):  # He et al., ICCV 2015
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Exits:
        """Logits of every exit."""
        maps, exits = self.stem(x), []
        for block, head in zip(self.blocks, self.heads, strict=True):
            maps = block(maps)
            exits.append(head(maps[-1]))
        return self.exit_rule(torch.stack(exits))
