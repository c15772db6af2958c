"""The resolution predictor R of DRNet: a small image in, one logit for each candidate out.

The paper's two: a residual network of four basic blocks for ResNets, and one of inverted residuals for networks of
depthwise convolutions. The exact layers of the first are those of the authors' released evaluation code; of the second
the paper gives the input side and the kind of block only, so its channels are ours, chosen to weigh what is printed
(3.8 M parameters with the classifier). The blocks are torchvision's.
"""

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
    """A predictor with fresh weights: (N, `images`, H, W) to logits (N, choices); `width` scales its inner channels."""
    body, channels = (_resnet10 if kind == RESNET10 else _inverted)(width, images)
    predictor = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, choices))
    return kaiming(predictor)  # as the released code; the linear layer keeps torch's


def _scaled(channels: int, width: float) -> int:
    """At least 8: with fewer, oneDNN's gradient of a strided 1x1 kernel writes past its buffer (AVX2, torch 2.15)."""
    return max(8, round(channels * width))


def _resnet10(width: float, images: int) -> tuple[list[nn.Module], int]:
    """7x7 stem, max pooling, four basic blocks: 0.2902 GMAC and 4.9 M parameters at 128 px and width 1."""
    c_in = _scaled(64, width)
    stem = nn.Conv2d(images, c_in, 7, 2, 3, bias=False)
    layers = [stem, nn.BatchNorm2d(c_in), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        c_out = _scaled(channels, width)
        projection = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        layers.append(BasicBlock(c_in, c_out, stride, None if stride == 1 else projection))
        c_in = c_out
    return layers, c_in


def _inverted(width: float, images: int) -> tuple[list[nn.Module], int]:
    """3x3 stem, max pooling, four inverted residuals: 10.4 MMAC and 0.26 M parameters at 64 px and width 1."""
    c_in = _scaled(32, width)
    stem = nn.Conv2d(images, c_in, 3, 2, 1, bias=False)
    layers = [stem, nn.BatchNorm2d(c_in), nn.ReLU6(inplace=True), nn.MaxPool2d(3, 2, 1)]
    for channels, stride in ((32, 1), (64, 2), (96, 2), (160, 2)):
        c_out = _scaled(channels, width)
        layers.append(InvertedResidual(c_in, c_out, stride, expand_ratio=6))
        c_in = c_out
    return layers, c_in
