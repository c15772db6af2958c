"""ResNet-152 as OctConv's authors released it (Table 7 of their paper), on GluonCV's post-activation skeleton.

Three 3x3 convolutions stand for the 7x7 of the stem, and the stride of a block sits on its last 1x1 convolution. v1e
keeps max pooling; v1f starts at full resolution and has a strided bottleneck in its place. With squeeze-and-excitation
a batch norm without parameters precedes the first 1x1 and the projection ("seems not to converge well" without it,
says a comment of theirs).
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from dynlib.book.zoo.preact_resnet import BLOCKS, EXPANSION, SQUEEZE
from dynlib.ops import kaiming


def _layer(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, relu: bool = True, norm: bool = False):
    """Convolution, batch norm and ReLU; `norm` puts a batch norm without parameters in front."""
    parts = {"prenorm": nn.BatchNorm2d(c_in, affine=False)} if norm else {}
    parts["conv"] = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    parts["norm"] = nn.BatchNorm2d(c_out)
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(OrderedDict(parts))


class Bottleneck(nn.Module):
    """1x1, 3x3 and strided 1x1 convolution: (N, C_in, H, W) -> (N, C_out, H/stride, W/stride).

    `strided` is the convolution, 1 to 3, that has the stride.
    """

    def __init__(self, c_in: int, width: int, c_out: int, stride: int, gated: bool = False, strided: int = 3):
        super().__init__()
        steps = [stride if place == strided else 1 for place in (1, 2, 3)]
        self.body = nn.Sequential(
            _layer(c_in, width, 1, steps[0], norm=gated),
            _layer(width, width, 3, steps[1]),
            _layer(width, c_out, 1, steps[2], relu=False),
        )
        self.se = SqueezeExcitation(c_out, c_out // SQUEEZE) if gated else None
        project = stride > 1 or c_in != c_out
        self.downsample = _layer(c_in, c_out, 1, stride, relu=False, norm=gated) if project else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of residual plus shortcut."""
        y = self.body(x)
        if self.se is not None:
            y = self.se(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class GluonResNet(nn.Module):
    """ResNet of bottlenecks: (N, 3, H, W) -> logits (N, num_classes), meant for 224 px.

    Args:
        blocks: bottlenecks in each of the four stages.
        num_classes: outputs of the classifier.
        pooled: max pooling behind the stem (v1e), else a strided bottleneck (v1f).
        gated: squeeze-and-excitation in every block.
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], num_classes: int = 1000, pooled: bool = True, gated: bool = False
    ):
        super().__init__()
        if pooled:
            stem = [_layer(3, 32, 3, 2), _layer(32, 32, 3), _layer(32, 64, 3), nn.MaxPool2d(3, 2, 1)]
        else:
            stem = [_layer(3, 8, 3), _layer(8, 32, 3, 2), _layer(32, 64, 3), Bottleneck(64, 32, 64, 2, strided=2)]
        self.stem = nn.Sequential(*stem)
        c_in = 64
        for stage, number in enumerate(blocks):
            width, c_out = 64 * 2**stage, 64 * EXPANSION * 2**stage
            layers = []
            for block in range(number):
                layers.append(Bottleneck(c_in, width, c_out, 2 if stage and not block else 1, gated))
                c_in = c_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


MODELS = {
    "gluon_resnet152_v1e": partial(GluonResNet, BLOCKS[152]),
    "gluon_resnet152_v1f": partial(GluonResNet, BLOCKS[152], pooled=False),
    "gluon_se_resnet152_v1e": partial(GluonResNet, BLOCKS[152], gated=True),
    "gluon_se_resnet152_v1f": partial(GluonResNet, BLOCKS[152], pooled=False, gated=True),
}
