"""The resolution predictor R of DRNet: a small image in, one logit for each candidate out.

The paper's two: a residual network of four basic blocks for ResNets, and one of inverted residuals for networks of
depthwise convolutions. The exact layers of the first are those of the authors' released evaluation code; of the second
the paper gives the input side and the kind of block only, so its channels are ours, chosen to weigh what is printed
(3.8 M parameters with the classifier). The blocks are torchvision's.
"""

from functools import partial

from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock

from dynlib.ops import kaiming

RESNET10, INVERTED, AUTO = "resnet10", "inverted", "auto"
SIDES = {RESNET10: 128 / 224, INVERTED: 64 / 224}  # of the input, share of the image's side: the paper's px over 224


def kind_for(model: nn.Module) -> str:
    """The paper's predictor for a classifier: inverted residuals where a convolution is depthwise, else ResNet-10."""
    depthwise = (m.groups == m.in_channels > 1 for m in model.modules() if isinstance(m, nn.Conv2d))
    return INVERTED if any(depthwise) else RESNET10


def build(kind: str, choices: int, width: float = 1.0, images: int = 3) -> nn.Sequential:
    """A predictor with fresh weights: (N, `images`, H, W) to logits (N, choices); `width` scales its inner channels.

    `resnet10` has 0.2902 GMAC and 4.9 M parameters at 128 px and width 1, `inverted` 10.4 MMAC and 0.26 M at 64 px.
    """
    side, activation, block, stages = _FORMS[kind]
    # At least 8: with fewer, oneDNN's gradient of a strided 1x1 kernel writes past its buffer (AVX2, torch 2.15).
    scaled = [max(8, round(channels * width)) for channels in stages]
    stem = nn.Conv2d(images, scaled[0], side, 2, side // 2, bias=False)
    layers = [stem, nn.BatchNorm2d(scaled[0]), activation(inplace=True), nn.MaxPool2d(3, 2, 1)]
    for c_in, c_out, stride in zip((scaled[0], *scaled), scaled, (1, 2, 2, 2), strict=False):
        layers.append(block(c_in, c_out, stride))
    predictor = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(scaled[-1], choices))
    return kaiming(predictor)  # as the released code; the linear layer keeps torch's


def _basic(c_in: int, c_out: int, stride: int) -> BasicBlock:
    projection = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    return BasicBlock(c_in, c_out, stride, None if stride == 1 else projection)


_FORMS = {  # side of the stem's kernel, activation, block, channels of the stem and of each block
    RESNET10: (7, nn.ReLU, _basic, (64, 128, 256, 512)),
    INVERTED: (3, nn.ReLU6, partial(InvertedResidual, expand_ratio=6), (32, 64, 96, 160)),
}
