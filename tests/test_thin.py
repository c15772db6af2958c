"""Thinner twins of any network."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from dynlib import backbones
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.backbones.thin import is_depthwise, thin
from dynlib.errors import InputError


def on_meta(arch, share=None, **kw):
    with torch.device("meta"):
        network = backbones.build(arch, 10, **kw)
        return network if share is None else thin(network, share)


def convolutions(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    "arch",
    [
        "alexnet",
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        "mobilenet_v2",
        "preact_se_resnet50",
        "regnet_y_400mf",
        "resnext50_32x4d",
        "shufflenet_v2_x1_0",
        "swin_v2_t",
    ],
)
def test_a_quarter_of_the_channels_costs_about_a_sixteenth_and_runs(arch):
    if arch.startswith("regnet"):  # its builder computes with values
        whole = backbones.build(arch, 10).to("meta")
        small = thin(whole, 0.25)
    else:
        whole, small = on_meta(arch), on_meta(arch, 0.25)
    image = torch.empty(2, 3, 224, 224, device="meta")
    assert small(image).shape == whole(image).shape == (2, 10)
    params = [sum(p.numel() for p in network.parameters()) for network in (whole, small)]
    assert 10 < params[0] / params[1] < 16.1
    assert type(small) is type(whole) and small.training


@pytest.mark.parametrize("share", [0.25, 0.5, 1.5])
def test_every_width_is_the_rounded_share_and_inputs_and_outputs_are_kept(share):
    whole, small = on_meta("vgg16"), on_meta("vgg16", share)
    for before, after in zip(convolutions(whole), convolutions(small), strict=True):
        assert after.out_channels == round(before.out_channels * share)
    assert [m.out_features for m in small.modules() if isinstance(m, nn.Linear)] == [4096 * share, 4096 * share, 10]
    assert convolutions(small)[0].in_channels == 3


def test_a_share_of_one_is_the_same_network_with_new_weights():
    torch.manual_seed(0)
    whole = ResNet(BasicBlock, [1, 1, 1, 1], 10)
    twin = thin(whole, 1)
    assert str(twin) == str(whole)
    assert not torch.equal(twin.conv1.weight, whole.conv1.weight)


@pytest.mark.parametrize(
    ("arch", "share", "groups"), [("resnext50_32x4d", 0.25, {1, 32}), ("resnext50_32x4d", 0.125, {1, 16, 32})]
)
def test_grouped_convolutions_keep_legal_groups(arch, share, groups):
    small = on_meta(arch, share)
    assert {conv.groups for conv in convolutions(small)} == groups
    small(torch.empty(2, 3, 64, 64, device="meta"))


def test_a_width_in_groups_is_a_multiple_of_them():
    grouped = [conv for conv in convolutions(on_meta("resnext50_32x4d", 0.3)) if conv.groups > 1]
    assert {conv.groups for conv in grouped} == {32}
    assert {conv.in_channels for conv in grouped} == {32, 64, 160, 320}  # 0.3 x 128 is 38.4, x 256 is 76.8


def test_depthwise_stays_depthwise():
    whole, small = on_meta("mobilenet_v2"), on_meta("mobilenet_v2", 0.3)
    assert [is_depthwise(conv) for conv in convolutions(whole)] == [is_depthwise(conv) for conv in convolutions(small)]


def test_shortcuts_without_parameters_follow():
    image = torch.randn(2, 3, 16, 16)
    assert thin(CifarResNet(8, width=8, shortcut="A"), 0.3)(image).shape == (2, 10)


@pytest.mark.parametrize(
    ("arch", "width"), [("resnet18", 16), ("vgg11_bn", 8), ("densenet121", 24), ("resnet50_v1", 8)]
)
def test_width_is_that_of_the_first_convolution_where_a_network_has_no_such_knob(arch, width):
    assert convolutions(on_meta(arch, width=width))[0].out_channels == width


def test_networks_with_a_knob_of_their_own_keep_it():
    assert convolutions(on_meta("mobilenet_v1", width=0.5))[0].out_channels == 16


def test_the_full_width_is_the_network_itself():
    torch.manual_seed(0)
    network = backbones.build("resnet18", 10, width=64)
    torch.manual_seed(0)
    assert torch.equal(network.conv1.weight, backbones.build("resnet18", 10).conv1.weight)


def test_weights_are_new_follow_from_the_seed_and_leave_the_model_alone():
    torch.manual_seed(0)
    model = ResNet(BasicBlock, [1, 1, 1, 1], 10).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twins = [torch.manual_seed(1) and thin(model, 0.5) for _ in range(2)]
    for a, b in zip(twins[0].parameters(), twins[1].parameters(), strict=True):
        assert torch.equal(a, b)
    deviation = (2 / (32 * 49)) ** 0.5  # He et al., fan-out
    assert twins[0].conv1.weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert not twins[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("share", [0, -1, float("nan"), float("inf"), True, "half"])
def test_a_share_that_is_no_positive_number_is_refused(share):
    with pytest.raises(InputError, match="share is"):
        thin(CifarResNet(8), share)


def test_an_operation_that_nobody_taught_us_is_named():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.conv(x).cumsum(1)

    with pytest.raises(InputError, match="cumsum: no rule for the operation"):
        thin(Sliced(), 0.5)


def test_a_norm_over_something_else_and_heads_of_attention_that_get_nothing_are_named():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 16, 1), nn.LayerNorm(32)

        def forward(self, x):
            return self.norm(self.conv(x))

    with pytest.raises(InputError, match=r"^norm \(LayerNorm\): is over \(32,\), not over the 16 channels"):
        thin(Rows(), 0.5)
    with pytest.raises(InputError, match="12 heads share 8 channels; allowed: a larger share"):
        on_meta("swin_t", 0.01)
