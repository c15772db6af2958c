"""What the authors' code says about their networks and the graph cannot: which layers are plain, and what was counted.

    schedule = SCHEDULES["gluon_mobilenet_v2"]
    network = convert(backbones.build("gluon_mobilenet_v2", width=1.125), Config(alpha=0.5, vanilla=schedule.vanilla))
    released_macs(network, 224, schedule)

The rule of `convert` gives their ResNets, ResNeXts, DenseNet and MobileNet v1 by itself; those need no patterns.
"""

from fnmatch import fnmatch
from math import prod
from typing import NamedTuple

import torch
from torch import nn

from dynlib.cost import closed_form, count, example
from dynlib.papers.octconv_ops import OctConv2d


class Schedule(NamedTuple):
    """Names, * allowed, of one backbone's layers."""

    vanilla: tuple[str, ...]  # `Config.vanilla`: layers with a plain output; none is the rule of `convert`
    free: tuple[str, ...]  # activations and poolings that are of a kind which the authors' counter does not know


def _v2(blocks: str, project: str) -> tuple[str, ...]:
    """Plain inputs and outputs of every block, and plain blocks from the 14th on (MobileNet v2 of the code)."""
    return (project, *(blocks.format(number) for number in range(14, 19)))


# Activations, and the poolings of the gates: contributed operators, here modules or (name "") functions.
_RESNET_FREE = ("layer*.relu", "layer*.function", "layer*.se.a*", "layer*.se.s*", "")

SCHEDULES = {
    # Point-wise 1 is the first octave layer, point-wise 11 the last: what `convert` finds. Global pooling is a
    # contributed operator there; Gluon's activations compile to nodes of another type, the stem's excepted.
    "mobilenet_v1": Schedule((), ("features.[1-9].?.2*", "features.1[0-3].?.2*", "avgpool")),
    "mobilenet_v2": Schedule(_v2("features.{}.*", "features.*.conv.[12]"), ()),  # torchvision's
    "gluon_mobilenet_v2": Schedule(_v2("features.{}.*", "features.*.project.*"), ()),
    **{
        f"gluon_{kind}resnet152_{stem}": Schedule(("stem.*", "layer4.*"), _RESNET_FREE)  # alpha in stages 2 to 4
        for kind in ("", "se_")
        for stem in ("v1e", "v1f")
    },
}
"""Backbone -> schedule, read in the authors' Gluon code."""


def released_macs(network: nn.Module, size: int | tuple[int, int], schedule: Schedule) -> int:
    """The authors' count (`cost.AUTHORS`) of one image, less the operators that their counter took for nothing.

    In a strided layer of the Gluon code the path from high to low is pooled 4 x 4 at once, here 2 x 2 twice, so that
    their count of ResNet-152 is larger by 0.01 %.
    """
    device = next(network.parameters(), torch.empty(0)).device
    layers = count(network, example(size).to(device), rule="authors").by_layer
    return sum(macs for name, macs in layers.items() if not any(fnmatch(name, pattern) for pattern in schedule.free))


def video_macs(network: nn.Module) -> int:
    """Multiply-accumulates of Table 8: of a network from `convert` of a padded `VideoResNet`, for 8 frames of 224 px.

    The published costs follow from maps of 55 px behind a first pooling without padding, with a low band of 28 px, the
    half rounded up. Such an octave cannot be added up, so the network has 56 px there; this is the sum for 55.
    """
    layers = closed_form(network, (8, 224, 224), {OctConv2d: OctConv2d.macs}).by_layer
    for name in layers:
        if name.startswith("layer1") or name == "layer2.0.body.0.0":
            layer = network.get_submodule(name)
            high = (layer.inp.high, layer.out.high) if isinstance(layer, OctConv2d) else layer.weight.shape[:2]
            frames = 8 if name.startswith("layer1") else 4  # the second pooling halves them
            layers[name] -= prod((*high, *layer.kernel_size, frames)) * (56**2 - 55**2)
    return sum(layers.values())
