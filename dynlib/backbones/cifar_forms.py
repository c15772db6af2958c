"""ImageNet networks in their forms for 32 px: torchvision's, with the strides that small images allow.

VGG16-BN ends in one linear layer (512 to the classes) behind its five poolings. MobileNetV2 has stride 1 in the stem
and 1, 1, 2, 2, 1, 2, 1 in its seven groups; other choices cost between 6 and 88 M multiply-accumulates. DenseNet-BC-100
is the network of Huang et al., CVPR 2017, Table 2: three blocks of 16 bottlenecks, growth 12, compression 0.5.
"""

from torch import Tensor, nn
from torchvision.models import DenseNet, MobileNetV2
from torchvision.models.vgg import cfgs, make_layers

from dynlib.errors import InputError
from dynlib.ops import kaiming

# Expansion, output channels at width 1, blocks, stride of the first block.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class CifarVGG(nn.Module):
    """VGG16-BN: (N, 3, H, W) -> logits (N, num_classes), H and W >= 32, meant for 32.

    `width` are the channels of the first layer, 64 in the paper; the others follow in proportion. Raises InputError
    where there is none.
    """

    def __init__(self, num_classes: int = 10, width: int = 64):
        super().__init__()
        if width < 1:
            raise InputError(f"width is {width}; it is a number of channels, at least 1")
        layers = [item if item == "M" else item * width // 64 for item in cfgs["D"]]
        self.features = make_layers(layers, batch_norm=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(layers[-2], num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        return self.classifier(self.flatten(self.avgpool(self.features(x))))


def cifar_mobilenet_v2(num_classes: int = 10, width_mult: float = 1.0) -> MobileNetV2:
    """MobileNetV2 whose last map is an eighth of the image, with torchvision's factor on all channels."""
    net = MobileNetV2(num_classes, width_mult, [list(group) for group in MOBILENET_V2])
    net.features[0][0].stride = (1, 1)
    return net


def cifar_densenet_bc100(num_classes: int = 10) -> DenseNet:
    """DenseNet-BC-100, growth 12, with a 3x3 stem of 24 channels and no pooling before the first block."""
    net = DenseNet(12, (16, 16, 16), 24, num_classes=num_classes)
    net.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.features.conv0.weight)
    for name in ("norm0", "relu0", "pool0"):  # every layer of a block brings its own
        delattr(net.features, name)
    return net


MODELS = {
    "cifar_vgg16_bn": CifarVGG,
    "cifar_mobilenet_v2": cifar_mobilenet_v2,
    "cifar_densenet_bc100": cifar_densenet_bc100,
}
