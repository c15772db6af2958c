"""A stage of a ResNet by itself, so that its cost and its speed can be told from the others': `resnet101_stage3`.

In front of it a 1x1 convolution makes the channels that it reads, from an image that has the size of the map there, and
behind it is a classifier: less than one per cent of its multiply-accumulates each.
"""

from functools import partial

from torch import Tensor, nn
from torchvision import models


class Stage(nn.Module):
    """Stage 1 to 4 of torchvision's `arch`, of bottlenecks: (N, 3, H, W) of the map that it reads there -> logits."""

    def __init__(self, arch: str, stage: int, num_classes: int = 1000):
        super().__init__()
        whole = models.get_model(arch, weights=None)
        self.stage = whole.get_submodule(f"layer{stage}")
        convs = [part for part in self.stage.modules() if isinstance(part, nn.Conv2d)]
        self.lift = nn.Conv2d(3, convs[0].in_channels, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.stage[-1].conv3.out_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Lift, run, classify."""
        return self.fc(self.pool(self.stage(self.lift(x))).flatten(1))


MODELS = {f"{arch}_stage{n}": partial(Stage, arch, n) for arch in ("resnet50", "resnet101") for n in (1, 2, 3, 4)}
