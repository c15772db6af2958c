"""Pruned networks: which channels go, that those without effect are not missed, and what is refused."""

import pytest
import torch
from torch import nn
from torchvision.models import ResNet, resnet

from dynlib.book import recipes, runs
from dynlib.errors import InputError
from dynlib.papers import sampling
from dynlib.papers.sampling.baselines import pruned


def network(block):
    torch.manual_seed(0)
    return ResNet(block, [2, 1, 1, 1], num_classes=4).eval()


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
def test_channels_that_yield_nothing_are_not_missed(block):
    net, x = network(block), torch.randn(2, 3, 32, 32)
    for name, norm in net.named_modules():
        if name.split(".")[-1] in ("bn1", "bn2") and "." in name:
            last = block is resnet.BasicBlock and name.endswith("bn2")  # not inside: the shortcut is added to it
            if not last:
                nn.init.zeros_(norm.weight[::2].data), nn.init.zeros_(norm.bias[::2].data)
    thin = pruned(net, 0.5)
    inner = thin.layer1[0].conv1.out_channels, thin.layer2[0].conv2.in_channels, thin.layer2[0].bn1.num_features
    assert inner == (32, 64, 64) and net.layer1[0].conv1.out_channels == 64
    with torch.no_grad():
        torch.testing.assert_close(thin(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_smallest_scales_go_and_a_few_channels_always_stay():
    net = network(resnet.Bottleneck)
    scale = net.layer1[0].bn1.weight.data
    scale.copy_(torch.arange(64.0).flip(0) * torch.tensor([1.0, -1.0]).repeat(32))
    assert torch.equal(pruned(net, 0.25).layer1[0].bn1.weight.data, scale[:48])
    assert torch.equal(pruned(net, 0.99).layer1[0].bn1.weight.data, scale[:8])
    assert torch.equal(pruned(net, 0).fc.weight, net.fc.weight)


def test_a_pruned_network_is_costed_and_sampled_like_any_other():
    net = network(resnet.Bottleneck)
    thin = pruned(net, 0.5)
    whole, half = (sampling.cost(sampling.convert(one, sampling.Config(density=1.0)), 64) for one in (net, thin))
    assert half.by_layer["layer2.0.conv2"] * 4 == whole.by_layer["layer2.0.conv2"]
    assert half.by_layer["layer2.0.conv3"] * 2 == whole.by_layer["layer2.0.conv3"]
    masked = sampling.convert(net, sampling.Config(density=0.5, sigma=1.0, pruned=0.5))
    assert sampling.expected(masked, 64, 1.0)["layer2.0.conv2"] == half.by_layer["layer2.0.conv2"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(sampling.deploy(masked, x)(x), masked(x), rtol=1e-3, atol=1e-4)


def test_a_run_takes_channels_from_the_network_that_the_dense_epochs_have_trained():
    recipe = recipes.Recipe("cifar_resnet20", "scenes", 3, batch_size=16, width=16, train_images=32)
    config = sampling.Config(pruned=0.5, density=1.0)
    record, model = runs.fit("sampling", config, recipe, profile="test", seed=0, checkpoints=None)
    assert [point["phase"] for point in record.curve] == ["dense", "dense", "sampled"]
    assert model.layer1[0].conv1.out_channels == 8 and model.layer3[2].bn1.num_features == 32
    assert record.metrics["macs"] == sampling.cost(model, 32).macs
    assert record.metrics["params"] == sum(parameter.numel() for parameter in model.parameters())


def test_grouped_convolutions_are_refused():
    with torch.device("meta"):
        grouped = resnet.resnext50_32x4d()
    with pytest.raises(InputError, match=r"layer1\.0 has grouped convolutions"):
        pruned(grouped, 0.5)
