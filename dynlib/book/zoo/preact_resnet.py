"""Pre-activation ResNets for ImageNet: He et al., ECCV 2016 (arXiv 1603.05027), as OctConv's authors built them.

Batch norm and ReLU stand before every convolution, the projection included, which has its own; one more pair ends the
network. These are the networks behind the ablation of the octave paper (Table 2 and Fig. 4 there), with the depths,
widths and batch norms of the authors' code: ResNet-26 and ResNet-200 exist only in this form, and their rule for
counting (`authors_count`) gives their figures only here. Attribute names are those of torchvision's ResNet. The SE
variant gates a block before the sum (Hu et al., CVPR 2018, arXiv 1709.01507).
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from dynlib.ops import kaiming

BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
EXPANSION = 4  # output channels of a bottleneck, as a multiple of its stage's width
SQUEEZE = 16  # output channels of a bottleneck over those of its gate's inner layer

_norm = partial(nn.BatchNorm2d, eps=1e-4, momentum=0.08)  # the authors' 0.92 is the share of the old average


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each behind batch norm and ReLU: (N, C_in, H, W) -> (N, C_out, H/stride, W/stride).

    `project` adds a 1x1 shortcut with a batch norm and a ReLU of its own, which every first block of a stage has;
    `gated` adds squeeze-and-excitation behind the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        groups: int,
        project: bool,
        gated: bool = False,
    ):
        super().__init__()
        self.bn1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn3 = _norm(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcitation(out_channels, out_channels // SQUEEZE) if gated else None
        self.downsample = None
        if project:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(_norm(in_channels), nn.ReLU(inplace=True), projection)

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut, with nothing behind the sum."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        if self.se is not None:
            out = self.se(out)
        return out + identity


class PreActResNet(nn.Module):
    """A pre-activation ResNet: (N, 3, H, W) -> logits (N, num_classes), meant for 224 px.

    Args:
        blocks: bottlenecks in each of the four stages, at least 1.
        num_classes: outputs of the linear layer.
        groups: of the 3x3 convolutions, as in ResNeXt.
        width_per_group: channels of a group in the first stage; 64 with 1 group is ResNet, 4 with 32 ResNeXt 32x4d.
        gated: squeeze-and-excitation in every block.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        num_classes: int = 1000,
        groups: int = 1,
        width_per_group: int = 64,
        gated: bool = False,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = _norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels = 64
        for stage, number in enumerate(blocks):
            width, out_channels = groups * width_per_group * 2**stage, 64 * EXPANSION * 2**stage
            shape = (width, out_channels)
            first = Bottleneck(in_channels, *shape, 1 if stage == 0 else 2, groups, project=True, gated=gated)
            rest = (Bottleneck(out_channels, *shape, 1, groups, False, gated) for _ in range(number - 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            in_channels = out_channels
        self.bn2 = _norm(in_channels)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(self.relu(self.bn2(x))), 1))


MODELS = {
    **{f"preact_resnet{depth}": partial(PreActResNet, blocks) for depth, blocks in BLOCKS.items()},
    **{
        f"preact_resnext{depth}_32x4d": partial(PreActResNet, BLOCKS[depth], groups=32, width_per_group=4)
        for depth in (50, 101)
    },
    "preact_se_resnet50": partial(PreActResNet, BLOCKS[50], gated=True),
}
