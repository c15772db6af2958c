"""Networks as people write them, for the tests: bodies that other tools got wrong, and whole networks of their own."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock


class Body(nn.Module):
    """An ordinary small classifier whose middle is `use(self, x)`, x being a map (N, 16, H, W) after a ReLU."""

    def __init__(self, use, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block = BasicBlock(16, 16)
        self.c, self.d, self.one = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 1, 1)
        self.i, self.drop, self.r, self.bn = nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True), nn.BatchNorm2d(16)
        self.p = nn.Parameter(torch.randn(16, 1, 1)) if use is shifted else None
        self.last, self.fc = nn.Conv2d(16, 16, 3, 2, 1), nn.Linear(16, 10)
        self.use = use
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.running_mean, std=0.3)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)

    def forward(self, x):
        y = self.use(self, self.block(self.stem(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(F.relu(self.last(y)), 1), 1))


def doubled(n, x):
    y = n.c(x)
    return y + n.i(y)


def dropped(n, x):
    y = n.c(x)
    return torch.relu(n.drop(y)) + y


def normed(n, x):
    y = n.c(x)
    return n.bn(n.i(y)) + y


def late(n, x):
    t = x * 1
    return n.c(t) + n.d(n.r(t))


def added(n, x):
    y = n.c(x)
    y.add_(n.d(x))
    return y


def aliased(n, x):
    a = n.c(x)
    b = a
    b += n.d(x)
    return a


def rectified(n, x):
    y = n.c(x)
    y.relu_()
    return y + n.d(x)


def overwritten(n, x):
    return n.c(n.r(n.d(x))) + n.bn(x)


def pooled(n, x):
    return n.bn(x) + n.c(F.adaptive_avg_pool2d(x, 1))


def shifted(n, x):
    return n.bn(n.c(x) + n.p)


def narrow(n, x):
    return n.c(x) + n.one(x)


def shared(n, x):
    return n.c(n.c(x))


def enlarged(n, x):
    return n.c(F.interpolate(F.max_pool2d(n.d(x), 2), scale_factor=2.0)) + x


def joined(n, x):
    y = n.one(x)
    return n.c(torch.cat([n.d(x)] * 1, 1)) + torch.cat([y] * 16, 1)


BODIES = (doubled, dropped, normed, late, added, aliased, rectified, overwritten, pooled, shifted, narrow, shared)
BODIES += (enlarged, joined)
