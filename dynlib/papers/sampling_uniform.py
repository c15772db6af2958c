"""Uniform sampling, the baseline: the dense network on a smaller image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shrink(x: Tensor, density: float) -> Tensor:
    """The image (N, C, H, W) with both sides times the root of `density`, bilinear and anti-aliased."""
    sides = [max(1, round(side * math.sqrt(density))) for side in x.shape[-2:]]
    with torch.autocast("cpu", enabled=False):  # a CPU has no such filter in bfloat16
        return F.interpolate(x.float(), sides, mode="bilinear", antialias=True)


class Shrink(nn.Module):
    """`shrink` as a layer."""

    def __init__(self, density: float):
        super().__init__()
        self.density = density

    def forward(self, x: Tensor) -> Tensor:
        """Make the image smaller."""
        return shrink(x, self.density)


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
