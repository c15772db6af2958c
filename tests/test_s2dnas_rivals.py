"""What stages are compared with: exits on layers, and MSDNet."""

import pytest
import torch
import torch.nn.functional as F
from networks import images
from torch import nn

from dynlib import backbones, cost
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.errors import InputError
from dynlib.papers import s2dnas
from dynlib.papers.s2dnas import Config, convert, deploy, macs_by_choice, summed_loss
from dynlib.papers.s2dnas.exits import set_thresholds
from dynlib.papers.s2dnas.layers import Exits
from dynlib.papers.s2dnas.rivals import MSDNet, exit_macs, layerwise


def test_msdnet_returns_exits_and_every_exit_learns():
    torch.manual_seed(0)
    net = MSDNet(3, 4, channels=4, growth=2)
    result = net(images())
    assert isinstance(result, Exits) and result.exits.shape == (3, 2, 4)
    summed_loss(net, images(), torch.tensor([0, 1]), 0.0).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.ndim > 1)


def test_layer_wise_exits_stand_behind_each_map_size_and_the_last_is_the_network_s_own():
    torch.manual_seed(0)
    static = CifarResNet(8, width=8).eval()
    model = layerwise(static)
    result, x = model(images()), images()
    assert torch.equal(result.exits[-1], static(x))
    features = static.layer1(static.relu(static.bn1(static.conv1(x))))
    expected = F.linear(features.mean((2, 3)), model.heads[0][2].weight, model.heads[0][2].bias)
    torch.testing.assert_close(result.exits[0], expected)
    set_thresholds(model, (0.0, 0.0))
    assert model(x).taken.tolist() == [0, 0]


def test_layer_wise_exits_cost_the_layers_before_them_and_the_heads_passed():
    with torch.device("meta"):
        static = backbones.build("cifar_resnet20", 10)
    layers = cost.count(static, cost.example(32).to("meta")).by_layer
    first = sum(macs for name, macs in layers.items() if name.startswith(("conv1", "layer1"))) + 16 * 10
    second = first + sum(macs for name, macs in layers.items() if name.startswith("layer2")) + 32 * 10
    assert exit_macs(layerwise(static), 32) == [first, second, sum(layers.values()) + 16 * 10 + 32 * 10]


@pytest.mark.parametrize(
    ("arch", "exits"), [("cifar_vgg16_bn", 5), ("cifar_mobilenet_v2", 4), ("resnet18", 4), ("densenet121", 4)]
)
def test_other_networks_get_an_exit_a_map_size(arch, exits):
    with torch.device("meta"):
        model = layerwise(backbones.build(arch, 10))
    costs = exit_macs(model, 64)
    assert len(costs) == exits and costs == sorted(costs)


def test_what_has_no_place_for_an_exit_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="no place for an exit"):
        layerwise(net)
    with pytest.raises(InputError, match="1 number or 2"):
        layerwise(CifarResNet(8), (0.5, 0.5, 0.5))
    with pytest.raises(InputError, match="blocks is 0"):
        MSDNet(0)
    with pytest.raises(InputError, match="5 exits need 1 number or 4"):
        MSDNet(5, exit_thresholds=(0.5, 0.5))


@pytest.mark.parametrize("form", ["layers", "msdnet"])
def test_a_rival_is_one_word_in_the_settings_and_costs_what_is_counted(form):
    model = convert(CifarResNet(8, 7, width=8), Config(form=form)).eval()
    assert model(images()).logits.shape == (2, 7)
    by_choice = macs_by_choice(model, 32)
    counted = cost.count(model, cost.example(32))
    assert list(by_choice.values())[-1] == counted.macs == s2dnas.cost(model, 32).macs
    assert s2dnas.cost(model, 32).params == counted.params
    with pytest.raises(InputError, match="no stages"):
        deploy(model, images())
