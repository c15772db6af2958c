"""What the ResNets of this package share: four stages of bottlenecks, each twice as wide as the one before."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn

EXPANSION = 4  # output channels of a bottleneck, as a multiple of its stage's width
SQUEEZE = 16  # output channels of a bottleneck over those of its gate's inner layer


class Bottleneck(nn.Module):
    """ReLU of a residual plus a shortcut; `gate` stands behind the residual."""

    def __init__(self, body: nn.Module, downsample: nn.Module | None = None, gate: nn.Module | None = None):
        super().__init__()
        self.body, self.se = body, gate or nn.Identity()
        self.downsample = downsample or nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, [T,] H, W) -> (N, C_out, [T,] H/stride, W/stride)."""
        return self.relu(self.se(self.body(x)) + self.downsample(x))


def resnet(
    stem: nn.Module,
    bottleneck: Callable[[int, int, int, int, int], nn.Module],
    blocks: Sequence[int],
    num_classes: int,
    width: int = 64,
    tail: nn.Module | None = None,
    pool: type[nn.Module] = nn.AdaptiveAvgPool2d,
) -> nn.Sequential:
    """Stem, stages, linear layer: (N, 3, [T,] H, W) -> logits (N, num_classes).

    Args:
        stem: what comes before the first stage; it has `width` channels.
        bottleneck: makes a block from its channels in and out, its stride, its stage from 0 and its place there from 0.
        blocks: bottlenecks in each stage.
        num_classes: outputs.
        width: the stages have 4, 8, 16 and 32 times as many channels.
        tail: between the stages and the pooling.
        pool: the global average pooling.
    """
    parts, c_in = {"stem": stem}, width
    for stage, depth in enumerate(blocks):
        c_out, layers = EXPANSION * width * 2**stage, []
        for place in range(depth):
            layers.append(bottleneck(c_in, c_out, 2 if stage and not place else 1, stage, place))
            c_in = c_out
        parts[f"layer{stage + 1}"] = nn.Sequential(*layers)
    parts |= {"tail": tail or nn.Identity(), "avgpool": pool(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(parts, fc=nn.Linear(c_in, num_classes)))
