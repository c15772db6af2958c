"""Small networks for the tests, with statistics of their own, and the five methods on them."""

from functools import cache

import torch
from torch import nn
from torchvision.models import DenseNet, MobileNetV2, ResNet, SqueezeNet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from dynlib import backbones, export
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.book.zoo.preact_resnet import preact_resnet
from dynlib.papers import drnet, octconv, s2dnas, sampling, wae
from dynlib.papers.sampling.masks import samplers


def mobile():
    """MobileNetV3 of four blocks, gated ones among them."""
    rows = [(16, 3, 16, 16, True, 1), (16, 3, 32, 24, False, 2), (24, 5, 48, 24, True, 1), (24, 3, 48, 32, True, 2)]
    settings = [InvertedResidualConfig(c, k, e, o, se, "HS", s, 1, 1.0) for c, k, e, o, se, s in rows]
    return MobileNetV3(settings, 64, 10)


def branches():
    """Two modules of GoogLeNet around a pooling."""
    stem = BasicConv2d(3, 16, kernel_size=3, stride=2, padding=1)
    first, second = (Inception(channels, 8, 8, 8, 4, 8, 8) for channels in (16, 32))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return nn.Sequential(stem, first, nn.MaxPool2d(3, 2, ceil_mode=True), second, *head)


def swin(**more):
    """Windows of 4 x 4 patches, shifted in the second block; 2 and 4 heads."""
    return SwinTransformer([2, 2], 16, [2, 1], [2, 4], [4, 4], num_classes=10, **more)


METHODS = {"wae": wae, "octconv": octconv, "s2dnas": s2dnas, "sampling": sampling, "drnet": drnet}
SMALL = {"predictor_width": 1 / 8, "candidates": (1.0, 0.5)}
NEUTRAL = {  # settings that rewrite a network and leave it what it is, and how to ask for what it says
    "octconv": (octconv.Config(alpha=1e-9, downsampling="strided"), lambda net, x: net(x)),
    "s2dnas": (s2dnas.Config(cuts=((0, 8),)), lambda net, x: net(x).logits),
    "sampling": (sampling.Config(density=1 - 1e-9), lambda net, x: net(x)),
    "drnet": (drnet.Config(**SMALL), lambda net, x: net(x, resolution=0).logits),
    "wae": (wae.Config(variant="downscaled"), lambda net, x: net.network(x)),
}
REAL = {"octconv": octconv.Config(), "s2dnas": s2dnas.Config(), "wae": wae.Config()}
REAL |= {"sampling": sampling.Config(density=0.5), "drnet": drnet.Config(**SMALL)}
MIXED = s2dnas.Config(cuts=((0, 1, 3, 8), (0, 4, 5, 8), (0, 2, 6, 8)), reuse=((1, 0, 1), (0, 1, 0), (1, 1, 1)))
FOUR = [1, 1, 1, 1]  # blocks
NETWORKS = {
    "pad": lambda: CifarResNet(8, width=8, shortcut="A"),
    "projection": lambda: CifarResNet(8, width=8, shortcut="B"),
    "basic": lambda: ResNet(BasicBlock, FOUR, 10),
    "bottleneck": lambda: ResNet(Bottleneck, FOUR, 10),
    "wide": lambda: ResNet(Bottleneck, FOUR, 10, width_per_group=128),
    "grouped": lambda: ResNet(Bottleneck, FOUR, 10, groups=8, width_per_group=8),
    "dilated": lambda: ResNet(Bottleneck, FOUR, 10, replace_stride_with_dilation=[False, True, True]),
    "pre-activation": lambda: preact_resnet((1, 2, 1, 1), 10, width_per_group=16),
    "dense": lambda: DenseNet(12, (2, 2), 24, bn_size=2, num_classes=10),
    "depthwise": lambda: MobileNetV2(10, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]),
    "gated": mobile,
    "gates in groups": lambda: RegNet(BlockParams([2, 1], [16, 32], [8, 8], [1.0, 1.0], [2, 2], 0.25), num_classes=10),
    "branches": branches,
    "scored map": lambda: SqueezeNet("1_1", 10),
    "channels last": lambda: ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)], 0.1, 0.5, 10),
    "windows": swin,
    "windows, second form": lambda: swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "vgg": lambda: backbones.build("cifar_vgg16_bn", 10, width=16),
}


@cache
def on_meta(arch, *classes, **more):
    """One of the backbones, without memory or values."""
    with torch.device("meta"):
        return backbones.build(arch, *classes, **more)


def images(batch=2, size=32, channels=3):
    """Always the same of one shape."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(size))


def strange(net):
    """Random statistics and affine parameters in every batch norm, so that order matters; in evaluation mode."""
    torch.manual_seed(1)
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight, norm.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.1)
    return net.eval()


def pointwise(net):
    """The network with kernels of one pixel: on a constant image all its maps are constant."""
    for name, m in list(net.named_modules()):
        if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1):
            small = nn.Conv2d(m.in_channels, m.out_channels, 1, m.stride, groups=m.groups, bias=m.bias is not None)
            net.set_submodule(name, small)
    return strange(net)


def assert_deployed(method, net, size=64, close=1e-5):
    """The network's deployed form, which answers as the network at batch 1 and 3."""
    deployed = method.deploy(net, images(1, size), threads=1)
    for x in (images(1, size), images(3, size)):
        with torch.inference_mode():
            assert export.difference(deployed(x), net(x)) <= close
    return deployed


def scored(net, scale=0.3, bias=0.0):
    """Scores of the masks of sampling that differ from place to place."""
    torch.manual_seed(1)
    for sampler in samplers(net).values():
        nn.init.normal_(sampler.score.weight, std=scale / sampler.score.in_channels)
        nn.init.constant_(sampler.score.bias, bias)
    return net


def network(name="projection"):
    """One of `NETWORKS`, or of the backbones; always the same."""
    torch.manual_seed(0)
    return strange(NETWORKS[name]() if name in NETWORKS else backbones.build(name, 10))


def small_segmenter():
    """A fully convolutional network of four dilated blocks, 4 classes; in evaluation mode."""
    torch.manual_seed(0)
    return FCN(IntermediateLayerGetter(network("dilated"), {"layer4": "out"}), FCNHead(2048, 4)).eval()


def small_detector():
    """Faster R-CNN with a pyramid on four bottlenecks, 2 classes, for 64 px."""
    levels = {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}
    backbone = BackboneWithFPN(network("bottleneck"), levels, [256, 512, 1024, 2048], out_channels=8)
    return FasterRCNN(backbone, 3, min_size=64, max_size=64, rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=20)


def converted(key, net, **settings):
    """The network in the form of a method, with choices that differ from image to image; in evaluation mode."""
    small = {"predictor_width": 0.125} if key == "drnet" else {}
    torch.manual_seed(2)
    model = strange(METHODS[key].convert(net, METHODS[key].Config(**small | settings)))
    with torch.no_grad():
        if key == "drnet" and hasattr(model, "predictor"):
            model.predictor[-1].bias -= model.score(images(16)).mean(0)
        if key == "s2dnas":
            sure = model(images(16)).exits.softmax(-1).amax(-1)  # (E, 16)
            model.exit_rule.thresholds.copy_(sure[:-1].median(1).values)  # half of the images at each exit
    return scored(model)
