"""MobileNetV2 as OctConv's authors built it: Sandler et al., CVPR 2018 (arXiv 1801.04381), on GluonCV's skeleton.

It differs from torchvision's in three ways that show in the counts: the first block has an expansion too, although its
factor is 1; channels are the product with the width rounded down, not to multiples of 8; the classifier has no bias.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from dynlib.errors import InputError
from dynlib.ops import kaiming

# Expansion, output channels at width 1, blocks, stride of the first block: Table 2.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _layer(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True):
    return Conv2dNormActivation(c_in, c_out, kernel, stride, groups=groups, activation_layer=nn.ReLU6 if relu else None)


class InvertedResidual(nn.Module):
    """Expansion, depthwise 3x3 and linear projection: (N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int):
        super().__init__()
        wide = c_in * expansion
        self.expand = _layer(c_in, wide)
        self.depthwise = _layer(wide, wide, 3, stride, groups=wide)
        self.project = _layer(wide, c_out, relu=False)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """The projection, plus the input where shapes agree."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def gluon_mobilenet_v2(num_classes: int = 1000, width: float = 1.0) -> nn.Sequential:
    """MobileNetV2: (N, 3, H, W) -> logits (N, num_classes), meant for 224 px.

    `width` is a factor on all channels; those of the tail, 1280, only grow. Raises InputError where it leaves a layer
    without channels.
    """
    if not 1 <= 16 * width < float("inf"):
        raise InputError(f"width is {width}; the factor on 16 to 320 channels is at least 1/16")
    c_in, tail = int(32 * width), int(1280 * max(1.0, width))
    layers = [_layer(3, c_in, 3, 2)]
    for expansion, channels, blocks, stride in STAGES:
        for block in range(blocks):
            c_out = int(channels * width)
            layers.append(InvertedResidual(c_in, c_out, expansion, 1 if block else stride))
            c_in = c_out
    parts = {"features": nn.Sequential(*layers, _layer(c_in, tail)), "avgpool": nn.AdaptiveAvgPool2d(1)}
    parts |= {"classifier": nn.Conv2d(tail, num_classes, 1, bias=False), "flatten": nn.Flatten()}
    return kaiming(nn.Sequential(OrderedDict(parts)))


MODELS = {"gluon_mobilenet_v2": gluon_mobilenet_v2}
