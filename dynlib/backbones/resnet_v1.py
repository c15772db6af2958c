"""ResNet as first published (He et al., CVPR 2016): a bottleneck's stride sits on its first 1x1 convolution.

torchvision's networks, often called v1.5, have it on the 3x3, which costs 6 % more and is a little more accurate.
"""

from functools import partial

from torchvision.models.resnet import Bottleneck, ResNet

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # Table 1 of the paper


class FirstStrided(Bottleneck):
    """torchvision's bottleneck with the stride moved from the 3x3 to the 1x1 in front of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride


def resnet_v1(blocks: tuple[int, ...], num_classes: int = 1000) -> ResNet:
    """The network: (N, 3, H, W) -> logits (N, num_classes), meant for 224 px."""
    return ResNet(FirstStrided, list(blocks), num_classes)


MODELS = {f"resnet{depth}_v1": partial(resnet_v1, blocks) for depth, blocks in BLOCKS.items()}
