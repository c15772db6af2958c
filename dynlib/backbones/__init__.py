"""Every backbone by name: torchvision's classifiers of images and clips, and the few it lacks.

build("resnet50")                                      torchvision's, random weights
build("cifar_resnet20", num_classes=10, width=8)       ours, see cifar_resnet.py
build("cifar_vgg16_bn", num_classes=10)                 ours, see cifar_forms.py
build("preact_resnet26")                               ours, see preact_resnet.py
build("mobilenet_v1", width=0.75)                      ours, see mobilenet_v1.py
build("gluon_mobilenet_v2", width=1.125)               ours, see gluon_mobilenet.py
build("gluon_se_resnet152_v1e")                        ours, see gluon_resnet.py
build("i3d_resnet50", num_classes=400)                 ours, of clips, see video_resnet.py
"""

import difflib

from torch import nn
from torchvision import models

from dynlib.backbones import (
    cifar_forms,
    cifar_resnet,
    gluon_mobilenet,
    gluon_resnet,
    mobilenet_v1,
    preact_resnet,
    video_resnet,
)
from dynlib.errors import InputError

_FILES = (cifar_resnet, cifar_forms, preact_resnet, mobilenet_v1, gluon_mobilenet, gluon_resnet, video_resnet)
OURS = {name: builder for file in _FILES for name, builder in file.MODELS.items()}

# Auxiliary heads would make forward return a tuple in training only; an initialisation left unchosen warns.
_WITHOUT_AUXILIARY_HEADS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def names() -> list[str]:
    """All that `build` knows, sorted."""
    return sorted([*OURS, *models.list_models(module=models), *models.list_models(module=models.video)])


def build(arch: str, num_classes: int = 1000, **kw) -> nn.Module:
    """A freshly initialised network, in train mode, whose forward returns logits (N, num_classes).

    Args:
        arch: a torchvision image or video classifier, or one of `OURS`.
        num_classes: outputs, at least 1.
        kw: passed on to the network's own builder, e.g. `width` and `shortcut` of a CIFAR ResNet.

    Raises:
        InputError: the name is unknown (the closest ones are listed), or there are no classes.
    """
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; a classifier has at least 1")
    if arch in OURS:
        return OURS[arch](num_classes=num_classes, **kw)
    known = names()
    if arch not in known:
        close = difflib.get_close_matches(arch, known, n=5, cutoff=0.5)
        hint = f"closest: {', '.join(close)}" if close else f"allowed: {', '.join(known)}"
        raise InputError(f"arch {arch!r} is unknown; {hint}")
    return models.get_model(
        arch, weights=None, num_classes=num_classes, **(_WITHOUT_AUXILIARY_HEADS.get(arch, {}) | kw)
    )
