"""ResNets for 32 px images: He et al., "Deep Residual Learning", CVPR 2016, Sec. 4.2 (arXiv 1512.03385).

A 3x3 stem, three stages of `n` basic blocks with `width`, 2 `width` and 4 `width` channels at full, half and quarter
resolution, global average pooling and one linear layer: 6n + 2 layers with weights. Post-activation, and attribute
names as in torchvision's ResNet, so a transformation written for one fits the other.
"""

from functools import partial

import torch
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.ops import PadShortcut, kaiming

DEPTHS = (20, 32, 44, 56, 110)  # Table 6


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (Fig. 2), (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounding up."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if (in_channels, stride) != (out_channels, 1):
            self.downsample = (
                PadShortcut(in_channels, out_channels, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut, then ReLU."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + identity)


class CifarResNet(nn.Module):
    """A ResNet for small images: (N, 3, H, W) -> logits (N, num_classes), any H and W >= 1, meant for 32.

    Args:
        depth: layers with weights, 6n + 2.
        num_classes: outputs of the linear layer.
        width: channels of the stem and the first stage; 16 in the paper.
        shortcut: "A", the paper's choice for CIFAR, pads with zeros, so that a residual net and its plain twin have
            the same parameters; "B" projects by a 1x1 convolution and batch norm, as every ImageNet ResNet does.
    """

    def __init__(self, depth: int, num_classes: int = 10, width: int = 16, shortcut: str = "A"):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"depth is {depth}; a CIFAR ResNet has 6n + 2 layers: 8, 14, 20, ...")
        if width < 1:
            raise InputError(f"width is {width}; it is a number of channels, at least 1")
        if shortcut not in ("A", "B"):
            raise InputError(f'shortcut is {shortcut!r}; allowed: "A" (subsample and pad) or "B" (1x1 projection)')
        block = partial(BasicBlock, shortcut=shortcut)
        blocks = (depth - 2) // 6

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            rest = (block(out_channels, out_channels, 1) for _ in range(blocks - 1))
            return nn.Sequential(block(in_channels, out_channels, stride), *rest)

        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


MODELS = {f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in (8, *DEPTHS)}  # 8: one block a stage
