"""Networks as nobody would write them: converted and deployed rightly by every method, or refused by a name.

Each network is a random program over feature maps: convolutions of many kinds, norms, activations in and out of place,
sums and products and concatenations, also of a map with itself, several readers, some of them of what was written into
later, pools and enlargements; with images of 1 to 4 channels, heads of several kinds, in both modes, and layers that
were pruned, reparametrised or hooked. GRAPHS in the environment sets how many are tried with each method; where it is
set, one of forty of them is deployed, which takes seconds.
"""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, event, given, settings, strategies as st
from networks import NEUTRAL, REAL
from people import Rectified
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock

from dynlib import export
from dynlib.errors import InputError
from dynlib.papers import METHODS, method

GRAPHS = os.environ.get("GRAPHS")
SIDE = 16
LAYERS = {  # what makes a layer for a map of so many channels; it has 16 of them, or as many as before
    "conv": lambda c: nn.Conv2d(c, 16, 3, 1, 1),
    "point": lambda c: nn.Conv2d(c, 16, 1, bias=False),
    "grouped": lambda c: nn.Conv2d(c, 16, 3, 1, 1, groups=2),
    "dilated": lambda c: nn.Conv2d(c, 16, 3, 1, 2, dilation=2),
    "strided": lambda c: nn.Conv2d(c, 16, 3, 2, 1),
    "transposed": lambda c: nn.ConvTranspose2d(c, 16, 2, 2),
    "shared": lambda c: nn.Sequential(*[nn.Conv2d(c, c, 3, 1, 1)] * 2),
    "depthwise": lambda c: nn.Conv2d(c, c, 3, 1, 1, groups=c),
    "norm": nn.BatchNorm2d,
    "unnormed": lambda c: nn.BatchNorm2d(c, track_running_stats=False),
    "rectified": Rectified,
    "relu": lambda c: nn.ReLU(),
    "relu_": lambda c: nn.ReLU(inplace=True),
    "drop": lambda c: nn.Dropout(0.0),
    "pool": lambda c: nn.MaxPool2d(2),
    "upsample": lambda c: nn.Upsample(scale_factor=2),
    "gate": lambda c: nn.Conv2d(c, c, 1),
    "block": lambda c: BasicBlock(c, c),
    "inverted": lambda c: InvertedResidual(c, c, 1, 2),
}
MAKES_16 = ("conv", "point", "grouped", "dilated", "strided", "transposed")
SCALE = {"strided": 0.5, "pool": 0.5, "transposed": 2, "upsample": 2, "up": 2}  # of the side
OF_ONE = {
    "up": lambda p: F.interpolate(p, scale_factor=2.0),
    "silu": F.silu,
    "scaled": lambda p: p * 0.5 + 1,
    "written": lambda p: (p * 1).relu_(),
    "relu_of_all": lambda p: p.relu_(),  # whoever reads the map later reads what was written
    "gone": lambda p: F.dropout(p, 0.5, False),
    "pooled": lambda p: p + p.mean((2, 3), keepdim=True),
    "channelwise": lambda p: F.layer_norm(p.permute(0, 2, 3, 1), p.shape[1:2]).permute(0, 3, 1, 2),
}
OF_TWO = {
    "add": lambda p, q: p + q,
    "iadd": lambda p, q: p.clone().add_(q),
    "iadd_of_all": lambda p, q: p.add_(q),
    "mul": lambda p, q: p * torch.sigmoid(q),
    "max": torch.maximum,
}


def aliased(p, q):
    """Written into by another name."""
    a = p * 1
    b = a
    b += q
    return a


OF_TWO["aliased"] = aliased
KINDS = (*LAYERS, *OF_ONE, *OF_TWO, "cat", "twice", "block", "block", "conv", "norm", "add")
HEADS = ("logits",) * 6 + ("viewed", "meaned", "optional", "dict", "tuple")
QUIRKS = ("",) * 20 + ("weight_norm", "pruned", "hook")


class Program(nn.Module):
    """A stem, random steps over the maps so far, a pooled head. A step reads maps by their place from the end."""

    def __init__(self, steps, channels, head):
        super().__init__()
        self.steps, self.layers, self.kind = [], nn.ModuleDict(), head
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1)
        shapes = [(16, SIDE)]
        for number, (kind, one, two) in enumerate(steps):
            a, b = (-1 - place % len(shapes) for place in (one, two))
            (c, side), other = shapes[a], shapes[b]
            side = int(side * SCALE.get(kind, 1))
            fits = {"cat": side == other[1] and c + other[0] <= 64, "twice": c == 16}.get(kind, True)
            if not 4 <= side <= SIDE or not fits or (kind in OF_TWO and (c, side) != other):
                continue
            if kind in LAYERS or kind == "twice":
                self.layers[str(number)] = LAYERS[kind if kind in LAYERS else "conv"](c)
            self.steps.append((kind, str(number), a, b))
            shapes.append((16 if kind in MAKES_16 else c + other[0] * (kind == "cat"), side))
        self.head = nn.Linear(shapes[-1][0], 10)

    def forward(self, x, targets=None, **more):
        maps = [self.stem(x)]
        for kind, name, a, b in self.steps:
            one, two = maps[a], maps[b]
            layer = self.layers._modules.get(name)
            if kind in OF_ONE:
                maps.append(OF_ONE[kind](one))
            elif kind in OF_TWO:
                maps.append(OF_TWO[kind](one, two))
            elif kind == "cat":
                maps.append(torch.cat([one, two], 1))
            elif kind == "gate":
                maps.append(one * torch.sigmoid(layer(one.mean((2, 3), keepdim=True))))
            elif kind == "twice":
                maps.append(layer(layer(one)))
            else:
                maps.append(layer(one * 1 if kind == "relu_" else one))
        if self.kind == "meaned":
            pooled = maps[-1].mean((2, 3))
        else:
            pooled = F.adaptive_avg_pool2d(maps[-1], 1)
            pooled = pooled.view(pooled.size(0), -1) if self.kind == "viewed" else torch.flatten(pooled, 1)
        scores = self.head(pooled)
        return {"dict": {"out": scores}, "tuple": (scores, x)}.get(self.kind, scores)


steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=10)
programs = st.tuples(
    steps, st.sampled_from((3, 3, 3, 3, 1, 2, 4)), st.sampled_from(HEADS), st.sampled_from(QUIRKS), st.booleans()
)
# Of those that are deployed, which takes seconds each, all have what every method asks for.
ordinary = steps.map(lambda found: ([("block", 0, 0), ("norm", 0, 0), *found], 3, "logits", "", False))
few = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
tried = settings(max_examples=int(GRAPHS or 60), **few)
deployed = settings(max_examples=max(1, int(GRAPHS or 0) // 40), **few)


def network(program):
    """The network of a program with its images, in one of both modes."""
    steps, channels, head, quirk, training = program
    torch.manual_seed(0)
    net = Program(steps, channels, head).train(training)
    {
        "": lambda layer: None,
        "weight_norm": parametrizations.weight_norm,
        "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        "hook": lambda layer: layer.register_forward_hook(lambda module, args, output: output * 2),
    }[quirk](net.stem)
    return net, torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def refusal(error: InputError, quirk: str) -> None:
    """A refusal is one short line; of a layer that was meddled with, by its name."""
    words = str(error)
    event("refused")
    assert "\n" not in words and 10 < len(words) <= 300, words
    assert not quirk or words.startswith("stem (")


def close(found, expected) -> None:
    event("right")
    share = export.difference(found, expected)
    assert share <= 1e-5, share


@pytest.mark.parametrize("key", METHODS)
@tried
@given(program=programs)
def test_a_rewritten_network_says_what_it_said_in_both_modes_or_is_refused(key, program):
    net, x = network(program)
    config, ask = NEUTRAL[key]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        converted = method(key).convert(net, config)
    except InputError as error:
        return refusal(error, program[3])
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        close(ask(converted, x.clone()), copy.deepcopy(net)(x.clone()))


@pytest.mark.parametrize("key", METHODS)
@tried
@given(program=programs)
def test_a_converted_network_answers_and_answers_the_same_again_or_is_refused(key, program):
    net, x = network(program)
    try:
        made = method(key).convert(net, REAL[key]).eval()
        with torch.no_grad():
            answer = made(x)
    except InputError as error:
        return refusal(error, program[3])
    with torch.no_grad():
        assert export.difference(made(x), answer) == 0  # nothing was written into


@pytest.mark.skipif(not GRAPHS, reason="GRAPHS is not set")  # test_peoples_networks.py deploys one of each method
@pytest.mark.parametrize("key", METHODS)
@deployed
@given(program=ordinary)
def test_a_deployed_network_says_what_the_converted_one_says_or_is_refused(key, program):
    net, x = network(program)
    try:
        made = method(key).convert(net, REAL[key]).eval()
        with torch.no_grad():
            expected = made(x)
        found = method(key).deploy(made, x[:1], threads=1)(x)
    except InputError as error:
        return refusal(error, program[3])
    close(found, expected)
