"""MobileNet (v1) for ImageNet: Howard et al., 2017 (arXiv 1704.04861), which torchvision lacks.

A stem and 13 pairs of a depthwise 3x3 and a pointwise 1x1 convolution, each with batch norm and ReLU (Table 1 there).
"""

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation as Layer

from dynlib.errors import InputError
from dynlib.ops import kaiming

# Outputs of the pointwise layers at width 1, and strides of the depthwise ones (Table 1).
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class MobileNetV1(nn.Module):
    """MobileNet: (N, 3, H, W) -> logits (N, num_classes), meant for 224 px.

    `width` is a factor on all channels, the paper's alpha; 0.25, 0.5, 0.75 and 1 there. Raises InputError where it
    leaves a layer without channels.
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0):
        super().__init__()
        if not 1 <= 32 * width < float("inf"):
            raise InputError(f"width is {width}; the factor on 32 to 1024 channels is at least 1/32")
        c_in = int(32 * width)
        layers = [Layer(3, c_in, 3, 2)]
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            c_out = int(channels * width)
            layers.append(nn.Sequential(Layer(c_in, c_in, 3, stride, groups=c_in), Layer(c_in, c_out, 1)))
            c_in = c_out
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c_in, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


MODELS = {"mobilenet_v1": MobileNetV1}
