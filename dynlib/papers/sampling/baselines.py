"""What sampling is compared with: the dense network on a smaller image, and with fewer channels (Table 6).

The paper's way of pruning could not be obtained. Ours goes by the scale of batch norm, as Liu et al. ("Network
Slimming", ICCV 2017): of the channels inside each residual block those of the smallest scale go, the same share of
every block; what blocks hand to each other stays.
"""

import copy
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.backbones.thin import FEWEST
from dynlib.errors import InputError
from dynlib.ops import keep_channels
from dynlib.papers.sampling.block import BLOCKS


def shrink(x: Tensor, density: float) -> Tensor:
    """The image (N, C, H, W) with both sides times the root of `density`, bilinear and anti-aliased."""
    sides = [max(1, round(side * math.sqrt(density))) for side in x.shape[-2:]]
    with torch.autocast("cpu", enabled=False):  # a CPU has no such filter in bfloat16
        return F.interpolate(x.float(), sides, mode="bilinear", antialias=True)


class ShrunkConv2d(nn.Conv2d):
    """A stem that first makes the image smaller, to about `density` of the positions that it had."""

    density: float

    def forward(self, x: Tensor) -> Tensor:
        """Resize, then convolve."""
        return super().forward(shrink(x, self.density))


def shrink_stem(host: nn.Module, density: float) -> None:
    """Let a network's stem, `conv1`, make the image smaller, in place; its weights keep their names.

    A segmentation network enlarges its answer to the image; a detector has to be asked with `fits_detector` first.
    """
    assert type(host.conv1) is nn.Conv2d
    host.conv1.__class__, host.conv1.density = ShrunkConv2d, density


def fits_detector(density: float) -> bool:
    """Whether a detector finds its objects on maps of the smaller image: its sides must be 1/2, 1/4, .. of the image's.

    torchvision's rounds the scales of its maps to powers of two, and the strides of its anchors down.
    """
    return math.log2(density) / 2 == round(math.log2(density) / 2)


def pruned(network: nn.Module, share: float) -> nn.Module:
    """A copy without the share of the channels inside of each block that has the smallest batch-norm scales.

    `share` is in [0, 1); at least `FEWEST` channels stay where there were as many. Raises InputError for grouped
    convolutions, whose channels do not go one by one, and where there is no block of `BLOCKS`.
    """
    network = copy.deepcopy(network)
    if not any(isinstance(part, BLOCKS) for part in network.modules()):
        raise InputError(f"{type(network).__name__} has no block that can be pruned; allowed are those of ResNets")
    for name, block in network.named_modules():
        if isinstance(block, BLOCKS):
            convs = [getattr(block, f"conv{i}") for i in (1, 2, 3) if hasattr(block, f"conv{i}")]
            norms = [getattr(block, f"bn{i}") for i in range(1, len(convs))]
            if any(conv.groups > 1 for conv in convs):
                raise InputError(f"{name} has grouped convolutions; allowed are blocks whose channels go one by one")
            for norm, (before, after) in zip(norms, pairwise(convs), strict=True):
                _keep(before, norm, after, _largest(norm.weight, share))
    return network


def _largest(scale: Tensor, share: float) -> Tensor:
    """Indices of the channels that stay, in order."""
    count = max(min(FEWEST, len(scale)), round((1 - share) * len(scale)))
    return scale.abs().topk(count).indices.sort().values


def _keep(before: nn.Conv2d, norm: nn.BatchNorm2d, after: nn.Conv2d, channels: Tensor) -> None:
    """Leave these channels alone between two convolutions, in place."""
    before.weight = nn.Parameter(before.weight.detach()[channels])
    after.weight = nn.Parameter(after.weight.detach()[:, channels])
    keep_channels(norm, channels)
    before.out_channels = after.in_channels = len(channels)
