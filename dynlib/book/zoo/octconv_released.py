"""What the authors' code says about their networks and the graph cannot: which layers are plain, and what was counted.

    regenerate("1.125 MobileNet v2, alpha 0.5", "macs")  # a row of the paper, see `NETWORKS`; or by hand:

    schedule = SCHEDULES["gluon_mobilenet_v2"]
    network = convert(backbones.build("gluon_mobilenet_v2", width=1.125), Config(alpha=0.5, vanilla=schedule.vanilla))
    released_macs(network, 224, schedule)

The rule of `convert` gives their ResNets, ResNeXts, DenseNet and MobileNet v1 by itself; those need no patterns.
"""

import re
from fnmatch import fnmatch
from functools import cache
from math import prod
from typing import NamedTuple

import torch
from torch import nn

from dynlib.backbones import build, takes_clips
from dynlib.book.zoo.authors_count import AUTHORS
from dynlib.cost import closed_form, count, example
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.ops import OctConv2d


class Schedule(NamedTuple):
    """Names, * allowed, of one backbone's layers."""

    vanilla: tuple[str, ...]  # `Config.vanilla`: layers with a plain output; none is the rule of `convert`
    free: tuple[str, ...]  # activations and poolings that are of a kind which the authors' counter does not know


BY_RULE = Schedule((), ())

# Activations, and the poolings of the gates: contributed operators, here modules or (name "") functions.
_RESNET_FREE = ("layer*.relu", "layer*.function", "layer*.se.a*", "layer*.se.s*", "")

SCHEDULES = {
    # Point-wise 1 is the first octave layer, point-wise 11 the last: what `convert` finds. Global pooling is a
    # contributed operator there; Gluon's activations compile to nodes of another type, the stem's excepted.
    "mobilenet_v1": Schedule((), ("features.[1-9].?.2*", "features.1[0-3].?.2*", "avgpool")),
    # Plain inputs and outputs of every block, and plain blocks from the 14th on.
    "gluon_mobilenet_v2": Schedule(("features.*.project.*", *(f"features.{n}.*" for n in range(14, 19))), ()),
    **{
        f"gluon_{kind}resnet152_{stem}": Schedule(("stem.*", "layer4.*"), _RESNET_FREE)  # alpha in stages 2 to 4
        for kind in ("", "se_")
        for stem in ("v1e", "v1f")
    },
}
"""Backbone -> schedule, read in the authors' Gluon code."""


NETWORKS: dict[str, tuple[str, dict]] = {
    **{f"ResNet-{depth}": (f"preact_resnet{depth}", {}) for depth in (26, 50, 101, 200)},
    **{f"ResNeXt-{depth} 32x4d": (f"preact_resnext{depth}_32x4d", {}) for depth in (50, 101)},
    "SE-ResNet-50": ("preact_se_resnet50", {}),
    "DenseNet-121": ("densenet121", {}),
    "0.75 MobileNet v1": ("mobilenet_v1", {"width": 0.75}),
    "1.0 MobileNet v1": ("mobilenet_v1", {}),
    "1.0 MobileNet v2": ("gluon_mobilenet_v2", {}),
    "1.125 MobileNet v2": ("gluon_mobilenet_v2", {"width": 1.125}),
    "ResNet-152": ("gluon_resnet152_v1f", {}),  # the stems as released; the paper describes this one for both
    "ResNet-152 + SE": ("gluon_se_resnet152_v1e", {}),
    "ResNet-152, stem with pooling": ("gluon_resnet152_v1e", {}),
    "ResNet-152 + SE, stem without pooling": ("gluon_se_resnet152_v1f", {}),
    "C2D": ("c2d_resnet50", {"num_classes": 400}),
    "I3D": ("i3d_resnet50", {"num_classes": 400}),
}
"""Network of Figure 4 or Tables 5 to 8, as the claims spell it -> backbone and its builder's arguments."""


@cache
def regenerate(row: str, metric: str) -> int | None:
    """`macs` by the authors' rule, or `params`, of a row of the paper; None where its network is not in `NETWORKS`.

    A row reads `NETWORK[, alpha A][, ...][, S px]`; the size is 224 px where none is given, of clips always.
    """
    name = max((known for known in NETWORKS if row == known or row.startswith(f"{known}, ")), key=len, default=None)
    if name is None:
        return None
    share, side = re.search(r", alpha ([\d.]+)", row), re.search(r", (\d+)(/\d+)? px$", row)
    network, arch = _network(name, float(share[1]) if share else 0.0), NETWORKS[name][0]
    if metric == "params":
        return sum(parameter.numel() for parameter in network.parameters())
    if takes_clips(arch):
        return video_macs(network)
    return released_macs(network, int(side[1]) if side else 224, SCHEDULES.get(arch, BY_RULE))


@cache
def _network(name: str, alpha: float) -> nn.Module:
    """A network of the paper on the meta device."""
    arch, settings = NETWORKS[name]
    with torch.device("meta"):
        plain = build(arch, **settings)
    return convert(plain, Config(alpha=alpha, vanilla=SCHEDULES.get(arch, BY_RULE).vanilla))


def released_macs(network: nn.Module, size: int | tuple[int, int], schedule: Schedule) -> int:
    """The authors' count (`authors_count`) of one image, less the operators that their counter took for nothing.

    In a strided layer of the Gluon code the path from high to low is pooled 4 x 4 at once, here 2 x 2 twice, so that
    their count of ResNet-152 is larger by 0.01 %.
    """
    device = next(network.parameters(), torch.empty(0)).device
    layers = count(network, example(size).to(device), formulas=AUTHORS).by_layer
    return sum(macs for name, macs in layers.items() if not any(fnmatch(name, pattern) for pattern in schedule.free))


def video_macs(network: nn.Module) -> int:
    """Multiply-accumulates of Table 8: of a network from `convert` of a padded `video_resnet`, for 8 frames of 224 px.

    The published costs follow from maps of 55 px behind a first pooling without padding, with a low band of 28 px, the
    half rounded up. Such an octave cannot be added up, so the network has 56 px there; this is the sum for 55.
    """
    layers = closed_form(network, (8, 224, 224)).by_layer
    for name in layers:
        if name.startswith("layer1") or name == "layer2.0.body.0.0":
            layer = network.get_submodule(name)
            high = (layer.inp.high, layer.out.high) if isinstance(layer, OctConv2d) else layer.weight.shape[:2]
            frames = 8 if name.startswith("layer1") else 4  # the second pooling halves them
            layers[name] -= prod((*high, *layer.kernel_size, frames)) * (56**2 - 55**2)
    return sum(layers.values())
