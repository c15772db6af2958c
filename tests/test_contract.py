"""What the five methods promise alike: the network that is kept, costs, inference, settings, refusals."""

import copy
import io

import pytest
import torch
from networks import METHODS, converted, images, network

from dynlib import backbones, cost

NEUTRAL = {  # settings at which a method leaves a network what it is
    "wae": {"variant": "full"},
    "octconv": {"alpha": 0},
    "s2dnas": {"cuts": ((0, 8),)},
    "sampling": {"density": 1},
    "drnet": {"candidates": (1,)},
}
each = pytest.mark.parametrize("key", METHODS)


@torch.no_grad()
def logits(net, x):
    answer = net(x)
    return getattr(answer, "logits", answer)


# ------------------------------------------------------------------------------------------------- what becomes of it


@each
def test_at_its_neutral_setting_a_method_leaves_the_network_what_it_is(key):
    plain = network()
    net = METHODS[key].convert(plain, METHODS[key].Config(**NEUTRAL[key]))
    assert net is not plain
    close = {"rtol": 1e-4, "atol": 1e-5} if key == "wae" else {"rtol": 0, "atol": 0}  # a batch norm is in front
    torch.testing.assert_close(logits(net, images()), logits(plain, images()), **close)
    assert METHODS[key].cost(net, 32).macs == cost.count(plain, images(1)).macs


@each
def test_the_weights_keep_their_names_and_the_callers_network_its_own(key):
    plain = network().train()
    before = copy.deepcopy(plain.state_dict())
    net = METHODS[key].convert(plain, METHODS[key].Config())
    state = net.state_dict()
    kernels = {name for name, p in plain.named_parameters() if p.dim() == 4}
    assert {name for name in kernels for other in state if same_place(name, other, before[name], state)} == kernels
    net(images(4, 64))  # new statistics
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


def same_place(name, other, value, state):
    """Whether a tensor of the converted network is that one of the original: its name, behind a part's, and values."""
    return f".{other}".endswith(f".{name}") and torch.equal(state[other], value)


@each
def test_every_layer_keeps_its_mode_and_a_new_one_has_that_of_what_it_lies_in(key):
    plain = network().train()
    if key != "wae":  # which takes its network apart and has the mode of the whole
        plain.layer1.eval()
        plain.layer2[0].bn1.eval()
    net = METHODS[key].convert(plain, METHODS[key].Config())
    frozen = {name for name, part in net.named_modules() if not part.training and "layer2.0.bn1" not in name}
    assert key == "wae" or any("layer2.0.bn1" in name for name, part in net.named_modules() if not part.training)
    assert frozen == {name for name in dict(net.named_modules()) if "layer1" in name.split(".") and key != "wae"}
    assert not any(part.training for part in METHODS[key].convert(plain.eval(), METHODS[key].Config()).modules())


@each
def test_training_and_evaluation_answer_with_one_type(key):
    net = converted(key, network())
    answers = [net.train()(images(4)), net.eval()(images(4))]
    assert type(answers[0]) is type(answers[1])
    assert all(getattr(answer, "logits", answer).shape == (4, 10) for answer in answers)


@each
def test_the_same_seed_gives_the_same_network_and_the_same_answers(key):
    one, two = converted(key, network()), converted(key, network())
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    torch.manual_seed(5)
    assert torch.equal(logits(one, images()), logits(two, images()))
    assert torch.equal(logits(one, images()), logits(two, images()))


@each
def test_a_state_dict_and_a_whole_network_come_back_as_they_were(key):
    net, file = converted(key, network()), io.BytesIO()
    other = METHODS[key].convert(backbones.build("cifar_resnet8", 10, width=8, shortcut="B"), config_of(net, key))
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    torch.save(net, file)
    file.seek(0)
    for again in (other.eval(), torch.load(file, weights_only=False)):
        assert torch.equal(logits(again, images()), logits(net, images()))
        assert list(again.state_dict()) == list(net.state_dict())
        assert METHODS[key].cost(again, 32) == METHODS[key].cost(net, 32)


def config_of(net, key):
    return METHODS[key].Config(**{"predictor_width": 0.125} if key == "drnet" else {})


# --------------------------------------------------------------------------------------------------------------- costs

COSTED = [  # of octave networks on average pooling, test_octconv_families.py tells
    *(("octconv", name, {"downsampling": "strided"}, 64) for name in ("basic", "dense", "depthwise", "bottleneck")),
    ("octconv", "projection", {}, 32),
    *(("s2dnas", name, {"reuse": ((1, 0, 1),)}, 32) for name in ("pad", "vgg")),
    *(("s2dnas", name, {"reuse": ((1, 0, 1),)}, 64) for name in ("basic", "grouped", "dense", "depthwise", "gated")),
    ("s2dnas", "vgg11_bn", {"reuse": ((1, 0, 1),)}, 64),
    ("sampling", "bottleneck", {}, 96),
    ("sampling", "grouped", {"interpolation": "average"}, 96),
    ("sampling", "wide", {"interpolation": "convolution", "masks": 3}, 96),
    ("sampling", "bottleneck", {"interpolation": "reuse"}, 96),
    ("sampling", "basic", {"masks": 1}, 96),
    ("sampling", "channels last", {}, 96),
    ("sampling", "basic", {"sampling": "uniform", "density": 0.5}, 96),
    ("drnet", "projection", {"predictor_width": 0.125}, 64),
    ("drnet", "projection", {"predictor_width": 0.125}, (32, 64)),
    ("wae", "resnet18", {}, 64),
    *(("wae", name, {}, 72) for name in ("scored map", "channels last", "windows", "windows, second form")),
    ("wae", "projection", {"variant": "wavelet"}, (32, 64)),
]


@pytest.mark.parametrize(("key", "arch", "settings", "size"), COSTED, ids=str)
def test_the_closed_form_is_what_the_counter_counts_layer_by_layer_in_integers(key, arch, settings, size):
    with torch.device("meta"):
        plain = network(arch)
    net = METHODS[key].convert(plain, METHODS[key].Config(**settings)).to("meta")
    closed, counted = METHODS[key].cost(net, size), cost.count(net, cost.example(size).to("meta"))
    assert list(closed.by_layer.values()) == list(counted.by_layer.values())
    assert closed.macs == counted.macs == sum(closed.by_layer.values()) and type(closed.macs) is int
    masked = key == "s2dnas"  # its masks hold numbers without an effect
    assert closed.params < counted.params if masked else closed.params == counted.params
