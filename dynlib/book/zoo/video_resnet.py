"""ResNet-50 for clips as in the octave paper's Table 8: C2D, and I3D with every other block inflated along time.

Both are those of Wang et al., "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971), Table 1, for 8 frames: the
first pooling is of space, the second halves time. I3D's inflated kernels are the stem, 5 x 7 x 7, and the first 1x1 of
every block of the first stage and of every other one behind it, 3 x 1 x 1; there is none in C2D. `pool_padding` 0 gives
the published costs, from maps of 55 px at 224; those are odd, so an octave network wants 1 and has 56.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import Conv3dNormActivation

BLOCKS = (3, 4, 6, 3)


def _layer(c_in: int, c_out: int, time: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    activation = nn.ReLU if relu else None
    return Conv3dNormActivation(c_in, c_out, (time, kernel, kernel), (1, stride, stride), activation_layer=activation)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution of space: (N, C_in, T, H, W) -> (N, C_out, T, H/stride, W/stride).

    `inflated` gives the first one three frames.
    """

    def __init__(self, c_in: int, width: int, c_out: int, stride: int, inflated: bool):
        super().__init__()
        first = _layer(c_in, width, 3 if inflated else 1, 1)
        self.body = nn.Sequential(first, _layer(width, width, 1, 3, stride), _layer(width, c_out, 1, 1, relu=False))
        project = stride > 1 or c_in != c_out
        self.downsample = _layer(c_in, c_out, 1, 1, stride, relu=False) if project else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of residual plus shortcut."""
        return self.relu(self.body(x) + (x if self.downsample is None else self.downsample(x)))


class VideoResNet(nn.Module):
    """ResNet-50 of clips: (N, 3, T, H, W) -> logits (N, num_classes), meant for 8 x 224 x 224.

    Args:
        num_classes: outputs of the linear layer; 400 of Kinetics.
        inflated: I3D, else C2D.
        pool_padding: of the first max pooling, 0 or 1 pixel on each side.
        blocks: bottlenecks in each of the four stages.
        width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
    """

    def __init__(
        self,
        num_classes: int = 400,
        inflated: bool = False,
        pool_padding: int = 1,
        blocks: tuple[int, int, int, int] = BLOCKS,
        width: int = 64,
    ):
        super().__init__()
        self.stem = _layer(3, width, 5 if inflated else 1, 7, 2)
        self.pool1 = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, pool_padding, pool_padding))
        c_in = width
        for stage, depth in enumerate(blocks):
            middle, c_out = width * 2**stage, 4 * width * 2**stage
            layers = []
            for block in range(depth):
                chosen = stage == 0 or block % 2 == (stage == 3)  # the second of the last stage's three
                layers.append(Bottleneck(c_in, middle, c_out, 2 if stage and not block else 1, inflated and chosen))
                c_in = c_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.pool2 = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of clips."""
        x = self.pool2(self.layer1(self.pool1(self.stem(x))))
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


_ONE_EACH = (1, 1, 1, 1)  # 14 layers with weights, for small clips; not in the paper

MODELS = {
    "c2d_resnet50": VideoResNet,
    "i3d_resnet50": partial(VideoResNet, inflated=True),
    "c2d_resnet14": partial(VideoResNet, blocks=_ONE_EACH),
    "i3d_resnet14": partial(VideoResNet, blocks=_ONE_EACH, inflated=True),
}
