"""ResNet-50 for clips as in the octave paper's Table 8: C2D, and I3D with every other block inflated along time.

Both are those of Wang et al., "Non-local Neural Networks", CVPR 2018 (arXiv 1711.07971), Table 1, for 8 frames: the
first pooling is of space, the second halves time. I3D's inflated kernels are the stem, 5 x 7 x 7, and the first 1x1 of
every block of the first stage and of every other one behind it, 3 x 1 x 1; there is none in C2D. `pool_padding` 0 gives
the published costs, from maps of 55 px at 224; those are odd, so an octave network wants 1 and has 56.
"""

from functools import partial

from torch import nn
from torchvision.ops import Conv3dNormActivation

from dynlib.book.zoo.skeleton import Bottleneck, resnet


def _layer(c_in: int, c_out: int, time: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    activation = nn.ReLU if relu else None
    return Conv3dNormActivation(c_in, c_out, (time, kernel, kernel), (1, stride, stride), activation_layer=activation)


def video_resnet(
    num_classes: int = 400,
    inflated: bool = False,
    pool_padding: int = 1,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
) -> nn.Sequential:
    """A ResNet of clips (N, 3, T, H, W), meant for 8 x 224 x 224; the 400 classes are those of Kinetics.

    `inflated` is I3D, else C2D. `pool_padding` is of the first max pooling, 0 or 1 pixel on each side.
    """

    def bottleneck(c_in: int, c_out: int, stride: int, stage: int, place: int) -> nn.Module:
        chosen = stage == 0 or place % 2 == (stage == 3)  # the second of the last stage's three
        middle = width * 2**stage
        first = _layer(c_in, middle, 3 if inflated and chosen else 1, 1)
        body = nn.Sequential(first, _layer(middle, middle, 1, 3, stride), _layer(middle, c_out, 1, 1, relu=False))
        project = stride > 1 or c_in != c_out
        return Bottleneck(body, _layer(c_in, c_out, 1, 1, stride, relu=False) if project else None)

    pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, pool_padding, pool_padding))
    stem = nn.Sequential(_layer(3, width, 5 if inflated else 1, 7, 2), pool)
    network = resnet(stem, bottleneck, blocks, num_classes, width, pool=nn.AdaptiveAvgPool3d)
    network.layer1.append(nn.MaxPool3d((2, 1, 1), (2, 1, 1)))
    return network


_ONE_EACH = (1, 1, 1, 1)  # 14 layers with weights, for small clips; not in the paper

MODELS = {
    "c2d_resnet50": video_resnet,
    "i3d_resnet50": partial(video_resnet, inflated=True),
    "c2d_resnet14": partial(video_resnet, blocks=_ONE_EACH),
    "i3d_resnet14": partial(video_resnet, blocks=_ONE_EACH, inflated=True),
}
