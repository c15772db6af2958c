"""ResNet-152 as OctConv's authors released it (Table 7 of their paper), on GluonCV's post-activation skeleton.

Three 3x3 convolutions stand for the 7x7 of the stem, and the stride of a block sits on its last 1x1 convolution. v1e
keeps max pooling; v1f starts at full resolution and has a strided bottleneck in its place. With squeeze-and-excitation
a batch norm without parameters precedes the first 1x1 and the projection ("seems not to converge well" without it,
says a comment of theirs).
"""

from collections import OrderedDict
from functools import partial

from torch import nn
from torchvision.ops import SqueezeExcitation

from dynlib.book.zoo.preact_resnet import BLOCKS
from dynlib.book.zoo.skeleton import SQUEEZE, Bottleneck, resnet
from dynlib.ops import kaiming


def _layer(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, relu: bool = True, norm: bool = False):
    """Convolution, batch norm and ReLU; `norm` puts a batch norm without parameters in front."""
    parts = {"prenorm": nn.BatchNorm2d(c_in, affine=False)} if norm else {}
    parts["conv"] = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    parts["norm"] = nn.BatchNorm2d(c_out)
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(OrderedDict(parts))


def bottleneck(
    c_in: int, width: int, c_out: int, stride: int, gated: bool = False, strides: tuple[int, ...] | None = None
) -> Bottleneck:
    """1x1, 3x3 and 1x1 convolution, of which the last is strided, or each as `strides` has it."""
    first, second, third = strides or (1, 1, stride)
    body = nn.Sequential(
        _layer(c_in, width, 1, first, norm=gated),
        _layer(width, width, 3, second),
        _layer(width, c_out, 1, third, relu=False),
    )
    gate = SqueezeExcitation(c_out, c_out // SQUEEZE) if gated else None
    project = stride > 1 or c_in != c_out
    return Bottleneck(body, _layer(c_in, c_out, 1, stride, relu=False, norm=gated) if project else None, gate)


def gluon_resnet(
    blocks: tuple[int, ...], num_classes: int = 1000, pooled: bool = True, gated: bool = False
) -> nn.Sequential:
    """The network, meant for 224 px: `pooled` is v1e, else v1f; `gated` adds squeeze-and-excitation to every block."""
    if pooled:
        stem = [_layer(3, 32, 3, 2), _layer(32, 32, 3), _layer(32, 64, 3), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [_layer(3, 8, 3), _layer(8, 32, 3, 2), _layer(32, 64, 3), bottleneck(64, 32, 64, 2, strides=(1, 2, 1))]

    def block(c_in: int, c_out: int, stride: int, stage: int, _: int) -> Bottleneck:
        return bottleneck(c_in, 64 * 2**stage, c_out, stride, gated)

    return kaiming(resnet(nn.Sequential(*stem), block, blocks, num_classes))


MODELS = {
    f"gluon_{kind}resnet152_{stem}": partial(gluon_resnet, BLOCKS[152], pooled=stem == "v1e", gated=kind == "se_")
    for kind in ("", "se_")
    for stem in ("v1e", "v1f")
}
