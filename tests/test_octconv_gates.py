"""Gates in octave networks: the same numbers as by hand, products that are none refused, gradients."""

import pytest
import torch
import torch.nn.functional as F
from networks import images, network, strange
from torch import nn
from torchvision.models.efficientnet import MBConvConfig, _efficientnet
from torchvision.ops import SqueezeExcitation, StochasticDepth

from dynlib import cost
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert
from dynlib.papers.octconv.layers import OctStochasticDepth, octave_gate, octave_mean
from dynlib.papers.octconv.ops import Octave, OctConv2d


def efficient():
    torch.manual_seed(0)
    rows = [MBConvConfig(*row, 1.0, 1.0) for row in ((1, 3, 1, 16, 16, 1), (4, 3, 2, 16, 24, 2), (4, 3, 2, 24, 32, 2))]
    return _efficientnet(rows, 0.2, None, weights=None, progress=False, stochastic_depth_prob=0.5, num_classes=10)


class Gated(nn.Module):
    """A concatenation of two maps, gated: by convolutions or by linear layers, in another order of the product."""

    def __init__(self, linear):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(8, 10, 1)
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        if not linear:
            self.gate = SqueezeExcitation(16, 4)
        self.linear, self.tail = linear, nn.Conv2d(16, 4, 3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = x * self.gate(x.mean((2, 3))).view(-1, 16, 1, 1) if self.linear else self.gate(x)
        return self.tail(x).mean((2, 3))


def test_a_gate_is_one_reduction_of_both_bands_and_one_expansion_cut_into_the_bands():
    plain = Gated(False).eval()
    net, x = convert(plain, Config(alpha=0.5)), images(2, 8)

    def pool(t):
        return F.avg_pool2d(t, 2)

    stem = plain.stem(x)
    high = torch.cat([plain.a(stem)[:, :3], plain.b(stem)[:, :5]], 1)
    low = torch.cat([plain.a(pool(stem))[:, 3:], plain.b(pool(stem))[:, 5:]], 1)
    order = [0, 1, 2, 6, 7, 8, 9, 10, 3, 4, 5, 11, 12, 13, 14, 15]  # the high ones of either, then the low ones
    squeezed = torch.cat([high.mean((2, 3), True), low.mean((2, 3), True)], 1)
    fc1, fc2 = plain.gate.fc1, plain.gate.fc2
    hidden = F.relu(F.conv2d(squeezed, fc1.weight[:, order], fc1.bias))
    gate = F.conv2d(hidden, fc2.weight[order], fc2.bias[order]).sigmoid()
    high, low = high * gate[:, :8], low * gate[:, 8:]
    half = torch.cat([pool(high), low], 1)  # the strided last layer reads both at half resolution
    assert torch.allclose(net(x), F.conv2d(half, plain.tail.weight[:, order], plain.tail.bias, padding=1).mean((2, 3)))


def test_a_gate_of_one_layer_for_all_maps_that_read_it_keeps_them_plain():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = (nn.Conv2d(3, 8, 3, 1, 1), *(nn.Conv2d(8, 8, 3, 1, 1) for _ in range(2)))
            self.fc, self.tail = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)

        def forward(self, x):
            a, b = self.a(x := self.stem(x)), self.b(x)
            gate = self.fc(F.adaptive_avg_pool2d(a, 1)).sigmoid()
            return self.tail(F.relu(a * gate) + b * gate).mean((2, 3))

    plain = Shared().eval()
    net = convert(plain, Config(downsampling="strided"))
    assert torch.allclose(net(images()), plain(images()), atol=1e-6)  # nothing left to split, but nothing broken


def test_octave_mean_and_gate_take_what_there_is():
    x = Octave(torch.randn(2, 3, 4, 4), torch.randn(2, 2, 2, 2))
    mean = octave_mean(x, keepdim=True)
    assert mean.shape == (2, 5, 1, 1) and octave_mean(x, keepdim=False).shape == (2, 5)
    assert torch.equal(octave_mean(Octave(None, x.low), keepdim=True), mean[:, 3:])
    y = octave_gate(x, mean)
    assert torch.equal(y.high, x.high * mean[:, :3]) and torch.equal(y.low, x.low * mean[:, 3:])
    assert octave_gate(Octave(None, x.low), mean[:, 3:]).high is None


def test_linear_layers_make_a_gate_too():
    net = convert(strange(Gated(True)), Config())
    assert net.gate.get_submodule("0").weight.shape == (4, 16)
    assert octconv.cost(net, (32, 32)).macs == cost.count(net, images(1)).macs
    assert torch.allclose(octconv.deploy(net, images())(images()), net(images()), atol=1e-5)


def test_stochastic_depth_drops_both_bands_of_an_image_or_none_and_rests_in_evaluation_mode():
    x = Octave(torch.ones(64, 2, 4, 4), torch.ones(64, 3, 2, 2))
    layer = OctStochasticDepth(StochasticDepth(0.5, "row"))
    torch.manual_seed(0)
    y = layer(x)
    kept = y.high[:, 0, 0, 0] > 0
    assert 0 < kept.sum() < 64 and torch.equal(kept, y.low[:, 2, 1, 1] > 0)
    assert torch.equal(y.high[kept], x.high[kept] * 2)
    assert layer.eval()(x) is x


def test_a_network_converted_or_deployed_in_train_mode_rests_in_evaluation_mode():
    plain = efficient().train()
    net, x = convert(plain, Config()), images(2, 64)
    assert not torch.equal(net(x), net(x))
    deployed = octconv.deploy(net, x)
    assert net.training and torch.equal(net.eval()(x), net(x))
    assert torch.allclose(deployed(x), net(x), atol=1e-5)


class Product(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1))
        self.tail, self.product = nn.Conv2d(8, 4, 1, 2), product

    def forward(self, x):
        x = self.stem(x)
        return self.tail(self.product(self.a(x), self.b(x)))


def test_a_product_with_a_number_scales_both_bands():
    net, x = Product(lambda x, y: x * 2).eval(), images(2, 64)
    assert torch.equal(convert(net, Config(alpha=0.0))(x), net(x))
    doubled = convert(net, Config(alpha=0.5))(x)
    net.product = lambda x, y: x
    once, bias = convert(net, Config(alpha=0.5))(x), net.tail.bias[:, None, None]
    torch.testing.assert_close(doubled - bias, 2 * (once - bias))


@pytest.mark.parametrize("product", [lambda x, y: x * y, lambda x, y: x * F.adaptive_avg_pool2d(y, 1)])
def test_a_product_that_is_no_gate_is_refused_by_name(product):
    with pytest.raises(InputError, match=r"^mul: no rule for the operation mul unless it is a map times a gate"):
        convert(Product(product), Config())


def test_gradients_reach_every_parameter_of_a_gated_network():
    net = convert(network("gated"), Config()).train()
    F.cross_entropy(net(images(8, 64)), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(m.weight.grad.any() for m in net.modules() if isinstance(m, OctConv2d))
