"""Pre-activation ResNets for ImageNet: He et al., ECCV 2016 (arXiv 1603.05027), as OctConv's authors built them.

Batch norm and ReLU stand before every convolution, the projection included, which has its own; one more pair ends the
network. These are the networks behind the ablation of the octave paper (Table 2 and Fig. 4 there), with the depths,
widths and batch norms of the authors' code: ResNet-26 and ResNet-200 exist only in this form, and their rule for
counting (`authors_count`) gives their figures only here. The SE variant gates a block before the sum (Hu et al., CVPR
2018, arXiv 1709.01507).
"""

from functools import partial

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from dynlib.backbones import resnet_v1
from dynlib.book.zoo.skeleton import SQUEEZE, resnet
from dynlib.ops import kaiming

BLOCKS = resnet_v1.BLOCKS | {26: (2, 2, 2, 2), 200: (3, 24, 36, 3)}

_norm = partial(nn.BatchNorm2d, eps=1e-4, momentum=0.08)  # the authors' 0.92 is the share of the old average


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, each behind batch norm and ReLU: (N, C_in, H, W) -> (N, C_out, H/stride, W/stride).

    Where the shape changes, the shortcut is a 1x1 convolution with a batch norm and a ReLU of its own. `gated` adds
    squeeze-and-excitation behind the last convolution.
    """

    def __init__(self, c_in: int, width: int, c_out: int, stride: int, groups: int, gated: bool):
        super().__init__()
        self.bn1 = _norm(c_in)
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn2 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn3 = _norm(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcitation(c_out, c_out // SQUEEZE) if gated else nn.Identity()
        self.downsample = nn.Identity()
        if stride > 1 or c_in != c_out:
            projection = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(_norm(c_in), nn.ReLU(inplace=True), projection)

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut, with nothing behind the sum."""
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        return self.se(out) + self.downsample(x)


def preact_resnet(
    blocks: tuple[int, ...], num_classes: int = 1000, groups: int = 1, width_per_group: int = 64, gated: bool = False
) -> nn.Sequential:
    """A pre-activation ResNet, meant for 224 px.

    `width_per_group` are the channels of a group of 3x3 convolutions in the first stage: 64 with 1 group is ResNet, 4
    with 32 ResNeXt 32x4d.
    """

    def bottleneck(c_in: int, c_out: int, stride: int, stage: int, _: int) -> PreActBottleneck:
        return PreActBottleneck(c_in, groups * width_per_group * 2**stage, c_out, stride, groups, gated)

    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), _norm(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    tail = nn.Sequential(_norm(64 * 2 ** (len(blocks) + 1)), nn.ReLU(inplace=True))
    return kaiming(resnet(stem, bottleneck, blocks, num_classes, tail=tail))


MODELS = {
    **{f"preact_resnet{depth}": partial(preact_resnet, blocks) for depth, blocks in BLOCKS.items()},
    **{
        f"preact_resnext{depth}_32x4d": partial(preact_resnet, BLOCKS[depth], groups=32, width_per_group=4)
        for depth in (50, 101)
    },
    "preact_se_resnet50": partial(preact_resnet, BLOCKS[50], gated=True),
}
