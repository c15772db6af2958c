"""ResNets for 32 px images: He et al., "Deep Residual Learning", CVPR 2016, Sec. 4.2 (arXiv 1512.03385).

A 3x3 stem, three stages of `n` basic blocks with `width`, 2 `width` and 4 `width` channels at full, half and quarter
resolution, global average pooling and one linear layer: 6n + 2 layers with weights. Post-activation, and attribute
names as in torchvision's ResNet, so a transformation written for one fits the other.
"""

import operator
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dynlib.errors import InputError
from dynlib.ops import kaiming

DEPTHS = (20, 32, 44, 56, 110)  # Table 6


class PadShortcut(nn.Module):
    """Option A of Sec. 4.2: every `stride`-th pixel, the new channels zero; no parameters, no multiply-adds.

    (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)). The zeros come last, but for `before` of them: an
    old channel keeps its index. One slice and one pad without any data-dependent branch: torch.fx may trace through it
    or keep it whole.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, before: int = 0):
        super().__init__()
        self.new_channels, self.stride, self.before = out_channels - in_channels, stride, before

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad."""
        near = x[:, :, :: self.stride, :: self.stride]
        return F.pad(near, (0, 0, 0, 0, self.before, self.new_channels - self.before))

    def extra_repr(self) -> str:
        """Show what was set."""
        return f"new_channels={self.new_channels}, stride={self.stride}"


def as_shortcuts(traced: fx.GraphModule) -> int:
    """Put the layer in the place of its public form, F.pad(x[:, :, ::s, ::s], (0, 0, 0, 0, a, b)); how often."""
    found = 0
    for node in list(traced.graph.nodes):
        near = node.args[0] if node.op == "call_function" and node.target is F.pad else None
        if not isinstance(near, fx.Node) or near.target is not operator.getitem or len(near.users) > 1:
            continue
        stride = near.args[1][-1].step if isinstance(near.args[1], tuple) and len(near.args[1]) == 4 else None
        every, steps = slice(None), slice(None, None, stride)
        if stride is None or near.args[1] != (every, every, steps, steps) or node.args[1][:4] != (0,) * 4:
            continue
        if len(node.args[1]) != 6 or not {*node.args[2:], *node.kwargs.values()} <= {"constant", 0, None}:
            continue
        name, (before, after) = f"{node.name}_shortcut", node.args[1][4:]
        traced.add_submodule(name, PadShortcut(0, before + after, stride, before))
        node.op, node.target, node.args, node.kwargs = "call_module", name, near.args[:1], {}
        traced.graph.erase_node(near)
        found += 1
    traced.recompile()
    return found


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (Fig. 2), (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounding up."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if (in_channels, stride) != (out_channels, 1):
            self.downsample = (
                PadShortcut(in_channels, out_channels, stride)
                if shortcut == "A"
                else nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut, then ReLU."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + identity)


class CifarResNet(nn.Module):
    """A ResNet for small images: (N, 3, H, W) -> logits (N, num_classes), any H and W >= 1, meant for 32.

    Args:
        depth: layers with weights, 6n + 2.
        num_classes: outputs of the linear layer.
        width: channels of the stem and the first stage; 16 in the paper.
        shortcut: "A", the paper's choice for CIFAR, pads with zeros, so that a residual net and its plain twin have
            the same parameters; "B" projects by a 1x1 convolution and batch norm, as every ImageNet ResNet does.
    """

    def __init__(self, depth: int, num_classes: int = 10, width: int = 16, shortcut: str = "A"):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"depth is {depth}; a CIFAR ResNet has 6n + 2 layers: 8, 14, 20, ...")
        if width < 1:
            raise InputError(f"width is {width}; it is a number of channels, at least 1")
        if shortcut not in ("A", "B"):
            raise InputError(f'shortcut is {shortcut!r}; allowed: "A" (subsample and pad) or "B" (1x1 projection)')
        block = partial(BasicBlock, shortcut=shortcut)
        blocks = (depth - 2) // 6

        def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            rest = (block(out_channels, out_channels, 1) for _ in range(blocks - 1))
            return nn.Sequential(block(in_channels, out_channels, stride), *rest)

        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


MODELS = {f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in (8, *DEPTHS)}  # 8: one block a stage
