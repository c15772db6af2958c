"""Frozen networks: the same numbers, fewer operations, with oneDNN and without."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VGG
from torchvision.models.vgg import cfgs, make_layers

from dynlib import backbones, cost, fusion
from dynlib.errors import InputError

BUILD = {
    "resnet18": lambda: backbones.build("resnet18", 10),
    "mobilenet_v2": lambda: backbones.build("mobilenet_v2", 10),
    "vgg16_bn": lambda: small_vgg(),
    "preact_resnet26": lambda: backbones.build("preact_resnet26", 10),
}


def small_vgg():
    """VGG16's convolutions in front of a small classifier."""
    net = VGG.__new__(VGG)
    nn.Module.__init__(net)
    net.features, net.avgpool = make_layers(cfgs["D"], batch_norm=True), nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))
    return net


def strange(net):
    """Random statistics and affine parameters in every batch norm; in evaluation mode."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net.eval()


def images(batch=2, size=64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


def assert_equal(frozen, net, x):
    with torch.inference_mode():
        expected = net(x)
    assert (frozen(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def onednn(request, monkeypatch):
    """With oneDNN's fused convolutions where torch has them, and without."""
    monkeypatch.setattr(fusion, "_ONEDNN", request.param and fusion._ONEDNN)


@pytest.mark.parametrize("arch", BUILD)
def test_a_frozen_network_equals_the_model_at_any_batch_and_size(arch, onednn):
    torch.manual_seed(0)
    net = strange(BUILD[arch]())
    frozen = fusion.freeze(net, images())
    for x in (images(), images(1), images(3, 96)):
        assert_equal(frozen, net, x)
    assert cost.count(frozen, images(1)).macs == cost.count(net, images(1)).macs


def test_nothing_of_a_residual_network_is_left_but_convolutions_poolings_and_the_classifier(onednn):
    net = strange(BUILD["resnet18"]())
    calls = [node for node in fusion.freeze(net, images()).graph.graph.nodes if node.op.startswith("call")]
    functions = [node.target for node in calls if node.target in (fusion.conv, fusion.conv_add)]
    assert functions.count(fusion.conv_add) == 8  # one for each block
    assert functions.count(fusion.conv) == 12
    assert len(calls) == len(functions) + 4  # max pooling, average pooling, flatten, linear


def test_freezing_leaves_the_model_and_its_mode_alone():
    net = strange(BUILD["resnet18"]()).train()
    net.layer1.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    frozen = fusion.freeze(net, images())
    assert net.training and not net.layer1.training and not frozen(images()).requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    nn.init.zeros_(net.fc.weight)
    assert frozen(images()).std() > 0.01  # it has weights of its own


class Two(nn.Module):
    """Two convolutions and what joins them."""

    def __init__(self, join, **kw):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.join = nn.Conv2d(3, 4, 3, padding=1, **kw), nn.Conv2d(3, 4, 1, bias=False), join
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x):
        return self.join(self, self.a(x), self.b(x))


JOINS = {
    "sum": lambda net, a, b: F.relu(a + b),
    "sum of itself": lambda net, a, b: a + a,
    "sum and a number": lambda net, a, b: 1 + a + b,
    "sum with a factor": lambda net, a, b: torch.add(a, b, alpha=3),
    "sum of three": lambda net, a, b: a + b + a,
    "sum behind a relu": lambda net, a, b: a.relu() + b,
    "norm behind a sum": lambda net, a, b: net.norm(a + b),
    "norm behind a relu": lambda net, a, b: net.norm(a.relu()) + b,
    "norm of one": lambda net, a, b: net.norm(a).relu_() + net.norm(b),
    "norm twice": lambda net, a, b: net.norm(net.norm(a)) + b,
    "broadcast": lambda net, a, b: a + b.mean((2, 3), keepdim=True),
    "parameter": lambda net, a, b: a * net.scale + b,
    "read twice": lambda net, a, b: torch.cat([net.norm(a), a, b.relu()], 1),
    "relu6": lambda net, a, b: F.relu6(a) + F.dropout(b, training=net.training),
}


@pytest.mark.parametrize("join", JOINS)
def test_whatever_stands_behind_a_convolution_the_numbers_stay(join, onednn):
    net = Two(JOINS[join]).eval()
    nn.init.uniform_(net.norm.running_var, 0.5, 2)
    nn.init.normal_(net.norm.running_mean)
    assert_equal(fusion.freeze(net, images(2, 8)), net, images(3, 8))


@pytest.mark.parametrize("kw", [{"padding_mode": "reflect"}, {"padding_mode": "circular"}])
def test_padding_other_than_zeros_stays(kw, onednn):
    net = Two(JOINS["sum"], **kw).eval()
    assert_equal(fusion.freeze(net, images(2, 8)), net, images(2, 8))


def test_padding_by_name_strides_groups_and_dilation_stay(onednn):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(8, 8, (3, 1), (2, 1), (2, 0), dilation=(2, 1), groups=4),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 4, 3, padding="valid"),
    )
    assert_equal(fusion.freeze(net, images(1, 16)), net, images(2, 16))


def test_a_batch_norm_without_running_statistics_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(InputError, match=r"BatchNorm2d\(4.*track_running_stats is False"):
        fusion.freeze(net, images(1, 8))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.float16), r"images are torch.float16 \(1, 3, 8, 8\) on cpu"),
        (torch.zeros(3, 8, 8), r"images are torch.float32 \(3, 8, 8\) on cpu"),
    ],
)
def test_what_is_no_batch_of_float32_images_is_refused(wrong, says):
    frozen = fusion.freeze(nn.Conv2d(3, 4, 1), images(1, 8))
    with pytest.raises(InputError, match=says):
        frozen(wrong)
    with pytest.raises(InputError, match=says):
        fusion.freeze(nn.Conv2d(3, 4, 1), wrong)


def test_a_network_in_half_precision_is_refused_before_it_is_packed():
    with pytest.raises(InputError, match=r"weight is torch.float16 on cpu; .*model.float\(\).cpu\(\)"):
        fusion.freeze(nn.Conv2d(3, 4, 1).half(), images(1, 8))
