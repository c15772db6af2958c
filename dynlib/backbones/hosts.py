"""What a ResNet carries besides a classifier: a dilated network with an FCN head, or a Faster R-CNN with a pyramid.

Heads are torchvision's, their widths in proportion to the backbone's; weights are random, batch norms learn.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.segmentation.fcn import FCNHead

from dynlib.backbones import build, resnet_v1
from dynlib.errors import InputError

STAGES = ("layer1", "layer2", "layer3", "layer4")
FULL_WIDTH = 64  # channels of a ResNet's stem, for which the heads below are published
PYRAMID, HIDDEN = 256, 1024  # channels of the pyramid and of the box head (Lin et al., CVPR 2017), at full width
# For the pyramid's five levels, of strides 4 to 64. torchvision's are twice as large, for images of 800 px.
ANCHORS_PX = ((16,), (32,), (64,), (128,), (256,))
RATIOS = (0.5, 1.0, 2.0)  # height by width of an anchor


def names() -> list[str]:
    """The backbones that can carry a host, sorted."""
    families = ("resnet", "resnext", "wide_resnet")
    return sorted([*resnet_v1.MODELS, *(n for n in models.list_models(module=models) if n.startswith(families))])


class Segmenter(nn.Module):
    """Images (N, 3, H, W) to the logits of each pixel, (N, K, H, W): backbone, head, bilinear enlargement."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Classify the pixels."""
        logits = self.head(self.backbone(images)["out"])  # (N, K, H / 8, W / 8)
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


def segmenter(arch: str, num_classes: int, width: int | None = None) -> Segmenter:
    """A fully convolutional network (Long et al., CVPR 2015) on a ResNet whose last two stages are dilated.

    Raises InputError for a backbone that has no such stages.
    """
    resnet = _resnet(arch, width)
    channels = resnet.fc.in_features
    dilate(resnet)
    return Segmenter(IntermediateLayerGetter(resnet, {"layer4": "out"}), FCNHead(channels, num_classes))


def dilate(resnet: nn.Module) -> None:
    """Let the last two stages keep the size of their map, in place: output stride 8 instead of 32.

    The 3x3 convolutions reach over the positions that the stride would have left out; those of a stage's first block
    do not yet see them at its own rate. As torchvision's `replace_stride_with_dilation`, which basic blocks lack.
    """
    rate = 1
    for stage in (resnet.layer3, resnet.layer4):
        for index, block in enumerate(stage):
            for conv in [part for part in block.modules() if isinstance(part, nn.Conv2d)]:
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (rate, rate)
            if index == 0:
                rate *= 2


def detector(arch: str, num_classes: int, width: int | None = None) -> FasterRCNN:
    """Faster R-CNN (Ren et al., NeurIPS 2015) with a feature pyramid, for normalised images of at most about 640 px.

    Takes what `DetectionBatches` yields: in training (images, targets) to a dict of losses, in evaluation images to a
    list of dicts of `boxes`, `labels` (from 1) and `scores`. Images are padded to multiples of 32 px, not resized.
    Proposals and boxes sampled are about a quarter of torchvision's defaults, which are for 800 px.
    Raises InputError for a backbone without the four stages.
    """
    resnet = _resnet(arch, width)
    share = resnet.conv1.out_channels / FULL_WIDTH
    pyramid, hidden = (max(8, round(share * channels)) for channels in (PYRAMID, HIDDEN))
    channels = [_channels(resnet.get_submodule(stage)) for stage in STAGES]
    levels = {stage: str(level) for level, stage in enumerate(STAGES)}
    network = FasterRCNN(
        BackboneWithFPN(resnet, levels, channels, pyramid),
        rpn_anchor_generator=AnchorGenerator(ANCHORS_PX, (RATIOS,) * len(ANCHORS_PX)),
        rpn_pre_nms_top_n_train=500,
        rpn_pre_nms_top_n_test=250,
        rpn_post_nms_top_n_train=500,
        rpn_post_nms_top_n_test=250,
        box_head=TwoMLPHead(pyramid * 7 * 7, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_classes + 1),
        box_batch_size_per_image=128,
    )
    network.transform = Padding(0, 0, [0.0] * 3, [1.0] * 3)  # sizes, mean and deviation, of which it needs none
    return network


class Padding(GeneralizedRCNNTransform):
    """Images as they come, but for zeros below and to the right up to multiples of 32 px.

    torchvision's own enlarges every image to 800 px, in evaluation even when told to skip that.
    """

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Nothing."""
        return image, target

    def normalize(self, image: Tensor) -> Tensor:
        """Nothing: batches are normalised."""
        return image


def _resnet(arch: str, width: int | None) -> nn.Module:
    if arch not in names():
        raise InputError(
            f"arch {arch!r} has no four stages for a head on dense features; allowed: {', '.join(names())}"
        )
    return build(arch, width=width)


def _channels(stage: nn.Module) -> int:
    """Channels that a stage yields."""
    return [part for part in stage[-1].children() if isinstance(part, nn.Conv2d)][-1].out_channels
