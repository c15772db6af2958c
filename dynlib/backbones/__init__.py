"""Every backbone by name: torchvision's classifiers of images and clips, and the few it lacks.

build("resnet50")                                      torchvision's, random weights
build("resnet50", width=16)                            its first convolution has 16 channels, all others in proportion
build("resnet50_v1")                                   ours, see resnet_v1.py
build("resnet101_stage3")                              ours, a stage alone, see resnet_stages.py
build("cifar_resnet20", num_classes=10, width=8)       ours, see cifar_resnet.py
build("cifar_vgg16_bn", num_classes=10)                 ours, see cifar_forms.py
build("mobilenet_v1", width=0.75)                      ours, see mobilenet_v1.py
build("efficientnet_lite0")                            ours, see efficientnet_lite.py

`register` adds others, as `dynlib.book.zoo` does with those behind printed costs: preact_resnet26, gluon_mobilenet_v2,
gluon_se_resnet152_v1e, i3d_resnet50 and their kin.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn
from torchvision import models

from dynlib import settings
from dynlib.backbones import cifar_forms, cifar_resnet, efficientnet_lite, mobilenet_v1, resnet_stages, resnet_v1
from dynlib.backbones.thin import thin
from dynlib.errors import InputError

_FILES = (cifar_resnet, cifar_forms, resnet_v1, resnet_stages, mobilenet_v1, efficientnet_lite)
OURS = {name: builder for file in _FILES for name, builder in file.MODELS.items()}
_OF_CLIPS: set[str] = set()

# Auxiliary heads would make forward return a tuple in training only; an initialisation left unchosen warns.
_WITHOUT_AUXILIARY_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def register(builders: Mapping[str, Callable[..., nn.Module]], clips: bool = False) -> None:
    """Let `build` know further networks, by name; `clips` where they read clips."""
    OURS.update(builders)
    _OF_CLIPS.update(builders if clips else ())


def names() -> list[str]:
    """All that `build` knows, sorted."""
    return sorted([*OURS, *models.list_models(module=models), *models.list_models(module=models.video)])


def takes_clips(arch: str) -> bool:
    """Whether a network that `build` knows reads clips (N, 3, T, H, W), not images."""
    return arch in _OF_CLIPS or arch in models.list_models(module=models.video)


def build(arch: str, num_classes: int = 1000, width: float | None = None, **kw) -> nn.Module:
    """A freshly initialised network, in train mode, whose forward returns logits (N, num_classes).

    Args:
        arch: a torchvision image or video classifier, or one of `OURS`.
        num_classes: outputs, at least 1.
        width: passed on to the network's own builder. Where that has none, it is the number of channels of the first
            convolution, and all others follow in proportion. None: as published.
        kw: passed on to the network's own builder, e.g. `shortcut` of a CIFAR ResNet.

    Raises InputError for an unknown name (the closest ones are listed), no classes, or no channels.
    """
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; a classifier has at least 1")
    builder = _builder(arch)
    if width is None:
        return builder(num_classes=num_classes, **kw)
    if "width" in inspect.signature(builder).parameters:
        return builder(num_classes=num_classes, width=width, **kw)
    if width < 1:
        raise InputError(f"width is {width}; it is a number of channels, at least 1")
    network = builder(num_classes=num_classes, **kw)
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    return network if width == first.out_channels else thin(network, width / first.out_channels)


def _builder(arch: str):
    """What makes the network of this name."""
    if arch in OURS:
        return OURS[arch]
    if arch not in (known := names()):
        raise settings.unknown("arch", arch, known)
    return partial(models.get_model, arch, weights=None, **_WITHOUT_AUXILIARY_HEADS.get(arch, {}))
