"""What networks cost before and after they are cut, and how many ways there are to cut them: lines for tables.

Counted on shapes alone, for 10 classes at 32 px. A line is a name with whole numbers or text, as it is to be read.
"""

from collections.abc import Mapping

import torch
from torch import nn

from dynlib.backbones import build
from dynlib.cost import count, example
from dynlib.papers.s2dnas import NESTED, Config, convert, cost, macs_by_choice
from dynlib.papers.s2dnas.rivals import MSDNet, exit_macs
from dynlib.papers.s2dnas.search import Space

NETWORKS = {  # how it is built, and its row in the public zoo where that has one
    "ResNet-20": ("cifar_resnet20", {}, None),
    "ResNet-20, projections": ("cifar_resnet20", {"shortcut": "B"}, "resnet20"),
    "ResNet-56": ("cifar_resnet56", {}, None),
    "ResNet-56, projections": ("cifar_resnet56", {"shortcut": "B"}, "resnet56"),
    "ResNet-110": ("cifar_resnet110", {}, None),
    "VGG16-BN": ("cifar_vgg16_bn", {}, "vgg16_bn"),
    "DenseNet-BC-100-12": ("cifar_densenet_bc100", {}, None),
    "MobileNetV2": ("cifar_mobilenet_v2", {}, "mobilenetv2_x1_0"),
}
CUT = ("ResNet-20", "ResNet-56", "VGG16-BN", "DenseNet-BC-100-12", "MobileNetV2")
SIZE = 32  # px
SHARES = (0.6, 0.25, 0.15)  # of the images that are made to leave at each exit where stages are timed
TIMED = {  # arch, size, batch, threads and shares of the latency records
    f"{name}, batch {batch}": (NETWORKS[name][0], (SIZE, SIZE), batch, 1, SHARES)
    for name, batch in (("VGG16-BN", 1), ("VGG16-BN", 16), ("ResNet-20", 1), ("ResNet-56", 1))
}


def network(name: str) -> nn.Module:
    """One of `NETWORKS`, shapes only."""
    arch, options, _ = NETWORKS[name]
    with torch.device("meta"):
        return build(arch, 10, **options)


def counted(model: nn.Module) -> int:
    """Multiply-accumulates that run, all exits included."""
    return count(model, example(SIZE).to("meta")).macs


def static_lines(zoo: Mapping[str | None, str], top1: Mapping[str | None, str]) -> list[dict[str, str]]:
    """The networks as they are: in closed form as one stage, counted, and in the public zoo, whose two are by row."""
    lines = []
    for name, (_, _, row) in NETWORKS.items():
        closed, ran = (
            cost(convert(network(name), Config(cuts=((0, NESTED[0][-1]),))), SIZE).macs,
            counted(network(name)),
        )
        line = {"network": name, "closed form, one stage": f"{closed:,}", "counted": f"{ran:,}"}
        lines.append(line | {"M": f"{ran / 1e6:.2f}", "zoo, M": zoo[row], "zoo top-1, %": top1[row]})
    return lines


def strides(name: str = "MobileNetV2") -> list[int]:
    """Strides of the stem and of every depthwise convolution, in order."""
    convolutions = [layer for layer in network(name).modules() if isinstance(layer, nn.Conv2d)]
    return [layer.stride[0] for place, layer in enumerate(convolutions) if not place or layer.groups > 1]


def stage_lines() -> list[dict[str, str]]:
    """Cumulative cost of the stages of the fixed cuts, with everything and with nothing reused."""
    lines = []
    for name in CUT:
        whole = counted(network(name))
        for label, reuse in (("everything", None), ("nothing", ((0, 0, 0),))):
            model = convert(network(name), Config(reuse=reuse))
            spent = macs_by_choice(model, SIZE)
            assert list(spent.values())[-1] == counted(model)
            line = {"network": name, "reused": label, "static, M": f"{whole / 1e6:.2f}"}
            lines.append(line | {f"to {at}, M": f"{m / 1e6:.2f} ({100 * m / whole:.1f} %)" for at, m in spent.items()})
    return lines


def space_lines() -> list[dict[str, str]]:
    """How many architectures there are."""
    lines = []
    for name, space in (("ResNet", Space(3, 2)), ("ResNet", Space(3, 3)), ("VGG16 at 32 px", Space(5, 3))):
        line = {"network": name, "map sizes": str(space.sizes), "stages": str(space.stages)}
        lines.append(line | {"choices a size": f"{space.per_size:,}", "architectures": f"{len(space):,}"})
    return lines


def msdnet() -> dict[str, dict[str, int]]:
    """Parameters and cumulative cost of MSDNet for batches under a budget, by the rows of the claims."""
    found = {}
    for blocks in (5, 7):
        with torch.device("meta"):
            net = MSDNet(blocks)
        name = f"{blocks} blocks, lin_grow, step 1, base 1"
        found[name] = {"params": sum(p.numel() for p in net.parameters())}
        found |= {f"{name}, exit {k}": {"macs": macs} for k, macs in enumerate(exit_macs(net, SIZE), 1)}
    return found
