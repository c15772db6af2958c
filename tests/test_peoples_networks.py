"""Networks as people write them, by every method: what eager PyTorch says, or refused by name in one line.

Each method is tried at a setting that rewrites the network and still must leave it what it is: octaves without a low
channel, one stage, masks that sample everything, full resolution, a tower below its own head.
"""

import people
import pytest
import torch
import torch.nn.functional as F
from networks import NEUTRAL, REAL, images
from torch import nn
from torch.nn.utils import parametrizations, prune

from dynlib import export
from dynlib.errors import InputError
from dynlib.papers import METHODS, drnet, method, octconv, s2dnas, sampling, wae


def refused(error: InputError) -> str:
    """A refusal, which is one short line."""
    words = str(error)
    assert "\n" not in words and len(words) <= 300, words
    return words


@torch.no_grad()
def outcome(key: str, net: nn.Module, x, example=None) -> str:
    """`right`, or the refusal of a method; fails where it answers wrongly."""
    config, ask = NEUTRAL[key]
    expected = net.eval()(x.clone())
    more = () if example is None or key in ("drnet", "sampling") else (example,)
    try:
        converted = method(key).convert(net, config, *more)
        real = method(key).convert(net, REAL[key], *more).eval()
        found = ask(converted.eval(), x.clone())
        real(x.clone())
    except InputError as error:
        return refused(error)
    assert export.difference(found, expected) <= 1e-5
    return "right"


# --------------------------------------------------------------------------------------------- bodies of a network

REFUSED = {  # by body and method: what is said; all else is right
    ("shifted", "octconv"): "p: no rule for the operation p",
    ("shifted", "s2dnas"): "p: no rule for the operation p",
    ("shifted", "wae"): "p: no rule for the operation p",
    ("narrow", "s2dnas"): "its two sides are of different channels",
    ("narrow", "wae"): "joins concatenations of different parts",
    ("widened", "s2dnas"): "its two sides are of different channels",
    ("widened", "wae"): "joins concatenations of different parts",
    ("joined", "s2dnas"): "its two sides are of different channels",
    ("joined", "wae"): "joins concatenations of different parts",
    ("shared", "octconv"): "c: the layer is used twice",
    ("shared", "s2dnas"): "c: the layer is used twice",
    ("renamed", "octconv"): "writes into a tensor that",
    ("renamed", "s2dnas"): "writes into a tensor that",
    ("renamed", "wae"): "writes into a tensor that",
}


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("body", people.BODIES, ids=lambda body: body.__name__)
def test_a_body_that_others_got_wrong_is_right_or_refused_by_name(body, key):
    words = outcome(key, people.Body(body), images())
    assert REFUSED.get((body.__name__, key), "right") in words


@pytest.mark.parametrize("body", people.BODIES, ids=lambda body: body.__name__)
def test_behind_a_stem_it_is_too(body):
    net = people.Body(body)
    net.block = nn.Identity()
    assert REFUSED.get((body.__name__, "octconv"), "right") in outcome("octconv", net, images())


@pytest.mark.parametrize("key", METHODS)
def test_deployed_they_are_right_too(key):
    config = s2dnas.Config(cuts=((0, 4, 8),)) if key == "s2dnas" else REAL[key]
    converted = method(key).convert(people.Body(people.all_of_them).eval(), config).eval()
    with torch.no_grad():
        expected = converted(images())
    assert export.difference(method(key).deploy(converted, images()[:1], threads=1)(images()), expected) <= 1e-5


# ------------------------------------------------------------------------------------------------ networks of their own

OWN = {
    "lenet": (lambda: people.LeNet(3), images(2, 28)),
    "grey lenet": (lambda: people.LeNet(1), images(2, 28, 1)),
    "stacked": (people.stacked, images()),
    "grey stacked": (lambda: people.stacked(1), images(2, 32, 1)),
    "four channels": (lambda: people.stacked(4), images(2, 32, 4)),
    "transposed": (lambda: people.UNet("transposed"), images()),
    "layer": (lambda: people.UNet("layer"), images()),
    "function": (lambda: people.UNet("function"), images()),
    "cifar": (people.CifarResNetOfTheirs, images()),
}
NO_BLOCK, NO_HEAD, NO_MAP = (
    "has no residual block to sample",
    "ends in one linear layer",
    "linear layers behind the last map",
)
OWN_REFUSED = {(name, "sampling"): NO_BLOCK for name in OWN if name != "cifar"}
OWN_REFUSED |= {(name, "s2dnas"): NO_HEAD for name in ("transposed", "layer", "function")}
OWN_REFUSED |= {(name, "wae"): NO_MAP for name in ("transposed", "layer", "function")}
OWN_REFUSED |= {
    (name, "wae"): "the split is one of images of 3" for name in ("grey lenet", "grey stacked", "four channels")
}


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("name", OWN)
def test_a_network_of_their_own_is_right_or_refused_by_name(name, key):
    net, x = OWN[name][0](), OWN[name][1]
    if (name, key) == ("lenet", "wae"):  # its tower reads half the image, so its head is another one
        assert wae.convert(net, REAL[key], x)(x).logits.shape == (2, 10)
        return
    if (name, key) in (("lenet", "drnet"), ("grey lenet", "drnet")):
        with pytest.raises(InputError, match="reads maps of one size alone") as error:
            drnet.convert(net, REAL[key]).eval()(x, resolution=1)
        refused(error.value)
        return
    assert OWN_REFUSED.get((name, key), "right") in outcome(key, net, x, example=x)


@pytest.mark.parametrize("key", ["octconv", "s2dnas", "wae"])
def test_a_head_that_reads_maps_of_one_size_asks_for_an_example(key):
    with pytest.raises(InputError, match=r"LeNet: does not run on a 3x224x224 image: .*; give an `example`") as error:
        method(key).convert(people.LeNet(3), REAL[key])
    refused(error.value)


# ------------------------------------------------------------------------------------------- layers, arguments, modes


class Added(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + x


class InTrainingNormed(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * (2 if self.training else 1)


class OtherwiseNormed(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, self.running_mean * 2, self.running_var, self.weight, self.bias)


def normed_by(kind):
    net = people.Body(people.normed)
    net.stem[1], net.bn = kind(16), kind(16)
    return net


class Optional(people.Body):
    def forward(self, x, targets=None, **more):
        scores = super().forward(x)
        return scores if targets is None else F.cross_entropy(scores, targets)


class Required(people.Body):
    def forward(self, x, targets):
        return super().forward(x)


class InTraining(people.Body):
    def forward(self, x):
        y = super().forward(x)
        return y * 2 if self.training else y


class Wrapped(people.Body):
    """`how` is done to the image first."""

    def __init__(self, how):
        super().__init__(people.doubled)
        self.how = how
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("variance", torch.ones(3))

    def forward(self, x):
        return super().forward(self.how(self, x))


class Named(people.Body):
    def forward(self, x):
        return {"out": super().forward(x)}


class Pair(people.Body):
    def forward(self, x):
        return super().forward(x), x


def changed(how, name="c"):
    net = people.Body(people.doubled)
    how(net.get_submodule(name))
    return net


def tied():
    net = people.Body(people.doubled)
    net.block.conv2.weight = net.block.conv1.weight
    return net


def lazy():
    net = people.Body(people.doubled)
    net.c = nn.LazyConv2d(16, 3, 1, 1)
    return net


def compiled():
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))


COPY = dict.fromkeys(METHODS)  # refused before anything else, by every method
GRAPH = dict.fromkeys([key for key in METHODS if key != "sampling"])  # by those that follow forward
KINDS = {  # what it is, what the methods that do not convert it say
    "batch norm with activation": (lambda: normed_by(people.Rectified), {}, ""),
    "batch norm and its input": (lambda: normed_by(Added), {}, ""),
    "another batch norm": (lambda: normed_by(OtherwiseNormed), {"octconv", "s2dnas", "wae"}, r"stem\.1 \(Other"),
    "a batch norm of two modes": (
        lambda: normed_by(InTrainingNormed),
        {"octconv", "s2dnas", "wae"},
        r"stem\.1, mul: differs in training mode",
    ),
    "no batch norm at all": (lambda: normed_by(nn.InstanceNorm2d), {"octconv", "s2dnas", "wae"}, "InstanceNorm2d"),
    "optional arguments": (lambda: Optional(people.doubled), {}, ""),
    "required arguments": (
        lambda: Required(people.doubled),
        GRAPH,
        "missing 1 required positional argument: 'targets'",
    ),
    "if self.training": (lambda: InTraining(people.doubled), GRAPH, "InTraining: .* differs in training mode"),
    "dropout of the mode": (lambda: Wrapped(lambda n, x: F.dropout(x, 0.5, n.training)), {}, ""),
    "dropout for ever": (lambda: Wrapped(lambda n, x: F.dropout(x, 0.5, True)), GRAPH, "drops in evaluation mode too"),
    "functional batch norm": (
        lambda: Wrapped(lambda n, x: F.batch_norm(x, n.mean, n.variance, training=n.training)),
        GRAPH,
        "batch_norm: differs in training mode",
    ),
    "frozen functional batch norm": (
        lambda: Wrapped(lambda n, x: F.batch_norm(x, n.mean, n.variance)),
        GRAPH,
        "no rule for the operation|F.batch_norm is no layer",
    ),
    "dict": (
        lambda: Named(people.doubled),
        {"s2dnas", "drnet", "wae"},
        "one linear layer|returns a|linear layers behind",
    ),
    "tuple": (
        lambda: Pair(people.doubled),
        {"s2dnas", "drnet", "wae"},
        "one linear layer|returns a|linear layers behind",
    ),
    "weight norm": (lambda: changed(parametrizations.weight_norm), COPY, r"^c \(.*its weight is parametrised"),
    "pruned": (lambda: changed(lambda c: prune.l1_unstructured(c, "weight", 0.5)), COPY, r"^c \(Conv2d\): has a hook"),
    "hook": (lambda: changed(lambda b: b.register_forward_hook(lambda *_: None), "block"), COPY, "^block .*has a hook"),
    "replaced": (lambda: changed(lambda b: setattr(b, "forward", lambda x: x), "block"), COPY, "^block .*was replaced"),
    "lazy": (lazy, COPY, r"^c \(LazyConv2d\): is lazy"),
    "compiled": (compiled, COPY, "is a compiled program"),
    "tied": (tied, {"octconv"}, r"block\.conv2\.weight: is block\.conv1\.weight too"),
    "double precision": (lambda: people.Body(people.doubled).double(), {}, ""),
}


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_layer_argument_or_mode_is_right_or_refused_by_name(name, key):
    made, refusing, words = KINDS[name]
    net = made()
    if key in refusing:
        with pytest.raises(InputError, match=words) as error:
            for config in (NEUTRAL[key][0], REAL[key]):
                method(key).convert(net, config)
        refused(error.value)
    elif (name, key) in {("dropout for ever", "sampling"), ("required arguments", "sampling")}:
        sampling.convert(net, REAL[key])  # answers as the network does: otherwise each time, and with arguments alone
    else:
        assert outcome(key, net, images().to(next(net.parameters()).dtype)) == "right"


def test_every_batch_norm_of_a_subclass_becomes_one_for_each_resolution():
    net = normed_by(people.Rectified)
    converted = drnet.convert(net, REAL["drnet"])
    before = sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in converted.classifier.modules()) == 2 * before


def test_a_converted_batch_norm_of_a_subclass_still_learns_its_statistics():
    net = normed_by(people.Rectified).train()
    converted, same = octconv.convert(net, NEUTRAL["octconv"][0]), net
    for module in (converted, same):
        torch.manual_seed(0)
        module(images())
    for name, tensor in converted.state_dict().items():
        assert torch.allclose(same.state_dict()[name], tensor), name


@pytest.mark.parametrize("body", [people.added, people.aliased, people.rectified], ids=lambda body: body.__name__)
def test_what_is_written_in_place_is_read_in_octaves(body):
    """Both forms of a network, one that writes in place and one that does not, have the same octaves."""
    plain = {"added": lambda n, x: n.c(x) + n.d(x), "rectified": lambda n, x: torch.relu(n.c(x)) + n.d(x)}
    plain["aliased"] = plain["added"]
    converted = [octconv.convert(people.Body(of), REAL["octconv"]).eval() for of in (body, plain[body.__name__])]
    with torch.no_grad():
        first, second = (network(images()) for network in converted)
    assert export.difference(first, second) <= 1e-6
