"""Networks as nobody would write them: converted rightly by every method, or refused by a name; never wrong in silence.

Each network is a random program over feature maps: convolutions of many kinds, norms, activations in and out of place,
sums and products and concatenations, also of a map with itself, several readers, pools and enlargements. GRAPHS in the
environment sets how many are tried.
"""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn

from dynlib.errors import InputError
from dynlib.ops import evaluating
from dynlib.papers import drnet, octconv, s2dnas, sampling, wae

GRAPHS = int(os.environ.get("GRAPHS", "40"))
SIDE = 32
NEUTRAL = {  # settings at which a method leaves every network what it is
    "octconv": lambda net: octconv.convert(net, octconv.Config(alpha=0.0)),
    "s2dnas": lambda net: s2dnas.convert(net, s2dnas.Config(cuts=((0, 8),))),
    "sampling": lambda net: sampling.convert(net, sampling.Config(density=1.0)),
    "drnet": lambda net: drnet.convert(net, drnet.Config(candidates=(1.0,))),
    "wae": lambda net: wae.convert(net, wae.Config(variant="full")),
}
REAL = {
    "octconv": lambda net: octconv.convert(net, octconv.Config(alpha=0.5)),
    "s2dnas": lambda net: s2dnas.convert(net, s2dnas.Config()),
    "drnet": lambda net: drnet.convert(net, drnet.Config(candidates=(1.0, 0.5), predictor_width=1 / 8)),
    "wae": lambda net: wae.convert(net, wae.Config()),
}


class Program(nn.Module):
    """A stem, random steps over the maps so far, a pooled head. A step reads maps by their place from the end."""

    def __init__(self, steps: list[tuple[str, int, int]]):
        super().__init__()
        self.steps, self.layers = [], nn.ModuleDict()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        shapes = [(16, SIDE)]
        for number, (kind, one, two) in enumerate(steps):
            a = -1 - one % len(shapes)
            b = -1 - two % len(shapes)
            made = self._layer(kind, shapes[a], shapes[b])
            if made is None:
                continue
            layer, shape = made
            if layer is not None:
                self.layers[str(number)] = layer
            self.steps.append((kind, str(number), a, b))
            shapes.append(shape)
        self.head = nn.Linear(shapes[-1][0], 10)

    @staticmethod
    def _layer(kind, a, b):
        """The layer of a step, if it has one, and the (channels, side) that it yields; None where it does not fit."""
        channels, side = a
        convs = {
            "conv": lambda: nn.Conv2d(channels, 16, 3, 1, 1),
            "point": lambda: nn.Conv2d(channels, 16, 1, bias=False),
            "grouped": lambda: nn.Conv2d(channels, 16, 3, 1, 1, groups=2),
            "depthwise": lambda: nn.Conv2d(channels, channels, 3, 1, 1, groups=channels),
            "dilated": lambda: nn.Conv2d(channels, 16, 3, 1, 2, dilation=2),
            "strided": lambda: nn.Conv2d(channels, 16, 3, 2, 1),
            "transposed": lambda: nn.ConvTranspose2d(channels, 16, 2, 2),
        }
        if kind in convs:
            if (kind == "strided" and side <= 4) or (kind == "transposed" and side >= SIDE):
                return None
            new = side // 2 if kind == "strided" else side * 2 if kind == "transposed" else side
            return convs[kind](), (channels if kind == "depthwise" else 16, new)
        if kind == "norm":
            return nn.BatchNorm2d(channels), a
        if kind == "unnormed":
            return nn.BatchNorm2d(channels, track_running_stats=False), a
        if kind in ("relu", "relu_"):
            return nn.ReLU(inplace=kind == "relu_"), a
        if kind in ("add", "iadd", "mul"):
            return (None, a) if a == b else None
        if kind == "cat":
            return (None, (channels + b[0], side)) if side == b[1] and channels + b[0] <= 64 else None
        if kind == "pool":
            return (nn.MaxPool2d(2), (channels, side // 2)) if side > 4 else None
        if kind == "up":
            return (None, (channels, side * 2)) if side < SIDE else None
        if kind == "gate":
            return nn.Conv2d(channels, channels, 1), a
        assert kind == "silu"
        return None, a

    def forward(self, x):
        maps = [self.stem(x)]
        for kind, name, a, b in self.steps:
            one, two = maps[a], maps[b]
            if kind in ("add", "iadd", "mul", "cat", "up", "silu"):
                y = {
                    "add": lambda p, q: p + q,
                    "iadd": lambda p, q: p.clone().add_(q),
                    "mul": lambda p, q: p * torch.sigmoid(q),
                    "cat": lambda p, q: torch.cat([p, q], 1),
                    "up": lambda p, q: F.interpolate(p, scale_factor=2.0),
                    "silu": lambda p, q: F.silu(p),
                }[kind](one, two)
            elif kind == "gate":
                y = one * torch.sigmoid(self.layers[name](one.mean((2, 3), keepdim=True)))
            elif kind == "relu_":
                y = self.layers[name](one * 1)
            else:
                y = self.layers[name](one)
            maps.append(y)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(maps[-1], 1), 1))


KINDS = (
    "conv",
    "point",
    "grouped",
    "depthwise",
    "dilated",
    "strided",
    "transposed",
    "norm",
    "unnormed",
    "relu",
    "relu_",
)
KINDS += ("add", "iadd", "mul", "cat", "pool", "up", "gate", "silu")
programs = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9)
tried = settings(max_examples=GRAPHS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def network(steps):
    torch.manual_seed(0)
    return Program(steps).eval()


def images():
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def logits(output):
    return getattr(output, "logits", output)


def refusal(error: InputError) -> None:
    """A refusal is one short line."""
    assert "\n" not in str(error) and 10 < len(str(error)) <= 300, str(error)


@pytest.mark.parametrize("key", NEUTRAL)
@tried
@given(steps=programs)
def test_at_its_neutral_setting_a_method_leaves_any_network_what_it_is(key, steps):
    net = network(steps)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        expected = net(images())
        try:
            found = logits(NEUTRAL[key](net)(images()))
        except InputError as error:
            return refusal(error)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item() + 1e-7)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("key", REAL)
@tried
@given(steps=programs)
def test_a_converted_network_answers_and_answers_the_same_again_or_is_refused(key, steps):
    net = network(steps)
    try:
        made = REAL[key](net)
        with torch.no_grad():
            answer = logits(made(images()))
    except InputError as error:
        return refusal(error)
    assert answer.shape == (2, 10) and answer.isfinite().all()
    with torch.no_grad(), evaluating(made):
        torch.testing.assert_close(logits(made(images())), answer)  # the same once more: nothing was written into
