"""Networks as people write them, for the tests: bodies that other tools got wrong, and whole networks of their own."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock


class Rectified(nn.BatchNorm2d):
    """A batch norm with its activation, as libraries fuse them in name."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


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


def widened(n, x):
    return n.bn(n.one(x) + n.d(x))


def shared(n, x):
    return n.c(n.c(x))


def enlarged(n, x):
    return n.c(F.interpolate(F.max_pool2d(n.d(x), 2), scale_factor=2.0)) + x


def joined(n, x):
    y = n.one(x)
    return n.c(torch.cat([n.d(x)] * 1, 1)) + torch.cat([y] * 16, 1)


def renamed(n, x):
    y = n.c(x)
    z = n.i(y)
    z.relu_()
    return y + n.d(x)


BODIES = (
    doubled,
    dropped,
    normed,
    late,
    added,
    aliased,
    rectified,
    overwritten,
    pooled,
    shifted,
    narrow,
    widened,
    shared,
)
BODIES += (enlarged, joined, renamed)


def all_of_them(n, x):
    """One body of those that every method takes, so that one deployed network tells of all."""
    y = n.bn(n.i(x)) + x
    y = torch.relu(n.drop(y)) + y
    a = n.c(y)
    b = a
    b += n.d(F.adaptive_avg_pool2d(y, 1))
    a.relu_()
    return a * 2 + n.r(y)


# ------------------------------------------------------------------------------------------------------ whole networks


class LeNet(nn.Module):
    """Functional activations and a head that flattens maps of one size, (N, C, 28, 28) to (N, 10)."""

    def __init__(self, channels):
        super().__init__()
        self.c1, self.bn, self.c2 = nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, 1, 1)
        self.f1, self.f2 = nn.Linear(16 * 7 * 7, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn(self.c1(x))), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.f2(F.relu(self.f1(x.view(x.size(0), -1))))


def stacked(channels=3):
    """Nothing but nn.Sequential."""
    layers = [nn.Conv2d(channels, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


class UNet(nn.Module):
    """A map for a map, enlarged by `up`: a transposed convolution, an Upsample layer, or F.interpolate."""

    def __init__(self, up):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.deep = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.up = {
            "transposed": lambda: nn.ConvTranspose2d(32, 16, 2, 2),
            "layer": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(32, 16, 1)),
            "function": lambda: nn.Conv2d(32, 16, 1),
        }[up]()
        self.enlarges = up == "function"
        self.out = nn.Sequential(nn.Conv2d(32, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 5, 1))

    def forward(self, x):
        a = self.down(x)
        b = self.deep(F.max_pool2d(a, 2))
        if self.enlarges:
            b = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(torch.cat([self.up(b), a], 1))


class _Shortcut(nn.Module):
    def __init__(self, new):
        super().__init__()
        self.new = new

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.new // 2, self.new // 2), "constant", 0)


class BasicBlockOfTheirs(nn.Module):
    """The block of public ResNets for CIFAR-10: its shortcut is a slice, padded on both sides."""

    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.shortcut = _Shortcut(c_out - c_in) if stride > 1 else nn.Sequential()

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return F.relu(y)


BasicBlockOfTheirs.__name__ = "BasicBlock"


class CifarResNetOfTheirs(nn.Module):
    """(N, 3, 32, 32) to (N, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks = [(16, 16), (16, 32, 2), (32, 64, 2), (64, 64)]
        self.layers = nn.Sequential(*(BasicBlockOfTheirs(*block) for block in blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(y, y.size()[3]).view(y.size(0), -1))
