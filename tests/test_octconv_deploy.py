"""Deployed octave networks: the module's numbers, whatever the settings."""

import onnx
import pytest
import torch
from torch import nn
from torchvision.models import DenseNet, MobileNetV2, ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.book.zoo.preact_resnet import PreActResNet
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.papers.octconv import Config, convert

NETWORKS = {
    "pad": lambda: CifarResNet(8, width=8, shortcut="A"),
    "projection": lambda: CifarResNet(8, width=8, shortcut="B"),
    "basic": lambda: ResNet(BasicBlock, [1, 1, 1, 1], 10),
    "grouped": lambda: ResNet(Bottleneck, [1, 1, 1, 1], 10, groups=8, width_per_group=4),
    "pre-activation": lambda: PreActResNet((1, 2, 1, 1), 10, width_per_group=16),
    "dense": lambda: DenseNet(8, (2, 2, 2, 2), num_init_features=16, bn_size=2, num_classes=10),
    "depthwise": lambda: MobileNetV2(10, 0.25),
}


def build(name):
    """A network with random statistics and affine parameters in its batch norms."""
    torch.manual_seed(0)
    net = NETWORKS[name]()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net.eval()


def images(batch=1, size=64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


def assert_deployed(net):
    """Equal outputs at batch 1 and 3."""
    deployed = octconv.deploy(net, images())
    for x in (images(), images(3)):
        with torch.inference_mode():
            expected = net(x)
        assert (deployed(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    return deployed


@pytest.mark.parametrize("name", NETWORKS)
def test_a_deployed_network_has_the_outputs_of_the_module(name):
    assert_deployed(convert(build(name), Config(alpha=0.5)))


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0},
        {"alpha": 0, "pooled_control": True},
        {"alpha": 0.3},
        {"alpha": 1},
        {"alpha": 0.5, "downsampling": "strided"},
        {"alpha": 0.5, "high_to_low": False},
        {"alpha": 0.5, "low_to_high": False},
        {"alpha": 0.5, "high_to_low": False, "low_to_high": False},
        {"alpha": 0.5, "vanilla": ("layer2.0.*",)},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["pad"])
def test_every_setting_can_be_deployed(name, settings):
    assert_deployed(convert(build(name), Config(**settings)))


def test_no_batch_norm_of_an_octave_is_left_behind_a_sum():
    deployed = assert_deployed(convert(build("projection"), Config()))
    graph = onnx.load_from_string(deployed.parts["network"].graph).graph
    writer = {name: node.op_type for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert all(writer[node.input[0]] == "Conv" for node in norms)  # which the runtime folds


def test_deploying_leaves_the_module_and_its_mode_alone():
    net = convert(build("projection"), Config()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    octconv.deploy(net, images())
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_deployed_network_refuses_or_pads_the_sizes_that_the_module_refuses_or_pads():
    plain = build("pad")
    with pytest.raises(InputError, match="size 30x30: layer2"):
        octconv.deploy(convert(plain, Config()), images(1, 30))
    padded = convert(plain, Config(sizes="pad"))
    assert torch.allclose(octconv.deploy(padded, images(1, 30))(images(2, 30)), padded(images(2, 30)), atol=1e-5)
