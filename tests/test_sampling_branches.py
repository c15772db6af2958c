"""Sampled blocks of any form: what is found, what it computes and costs, and what is left alone or refused."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

from dynlib import export
from dynlib.data import Batches, load
from dynlib.errors import InputError
from dynlib.papers import sampling
from dynlib.papers.sampling.block import loss_shares, sampled_blocks
from dynlib.papers.sampling.interpolate import interpolate
from dynlib.papers.sampling.masks import observed, samplers
from dynlib.papers.sampling.training import objective
from tests.networks import images, network, scored, strange


def efficient():
    rows = [FusedMBConvConfig(2, 3, 1, 16, 16, 1), MBConvConfig(2, 5, 1, 16, 16, 1), MBConvConfig(4, 3, 2, 16, 24, 2)]
    return EfficientNet(rows, 0.0, num_classes=10, last_channel=32)


NETWORKS = {  # blocks that can be sampled; masks, of 2 asked for; fillers
    "depthwise": (lambda: network("depthwise"), 2, 3, 3),
    "gated": (lambda: network("gated"), 2, 3, 5),  # the first block has no expansion, and one mask
    "efficient": (efficient, 3, 5, 7),
    "channels last": (lambda: network("channels last"), 3, 3, 3),
    "gates in groups": (lambda: network("gates in groups"), 1, 2, 3),
}


def pair(name, **settings):
    torch.manual_seed(0)
    plain = strange(NETWORKS[name][0]())
    return plain, scored(sampling.convert(plain, sampling.Config(**settings)))


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_whose_branch_keeps_the_size_has_masks(name):
    plain, net = pair(name)
    _, blocks, masks, fillers = NETWORKS[name]
    found = sampled_blocks(net)
    assert len(found) == blocks and len(samplers(net)) == masks
    assert sum(len(block.filled) for block in found.values()) == fillers
    assert all(sum(block.shares) == pytest.approx(1) for block in found.values())
    assert set(loss_shares(net)) == set(samplers(net))
    state = net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize(("masks", "kind"), [(1, "reuse"), (2, "rbf"), (3, "reuse")])
@pytest.mark.parametrize("name", NETWORKS)
def test_masks_that_sample_everything_give_the_original_output(name, masks, kind):
    plain, net = pair(name, masks=masks, interpolation=kind, density=1 - 1e-9)
    with torch.no_grad():
        assert export.difference(net(images(2, 64)), plain(images(2, 64))) <= 1e-5


def test_an_inverted_residual_is_what_its_formula_says():
    torch.manual_seed(0)
    expand, depthwise, project = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 4, 1)
    plain = Residual(expand, nn.ReLU(), depthwise, nn.ReLU6(), project)
    net = scored(sampling.convert(plain, sampling.Config(epsilon=1e-5, grid=None, sigma=1.0))).eval()
    x = images(2, 9, 4)
    with torch.no_grad(), observed(net) as samples:
        found = net(x)
    first, second = (samples[f"samplers.{i}"].mask for i in range(2))
    assert 0 < first.mean() < 1 and not torch.equal(first, second)
    with torch.no_grad():
        kernels = [net.fillers[i].kernel() for i in range(2)]
        wide = interpolate(expand(x).relu(), first, kernels[0], 1e-5)
        branch = interpolate(project(depthwise(wide).clamp(0, 6)), second, kernels[1], 1e-5)
    torch.testing.assert_close(found, x + branch)


@pytest.mark.parametrize("kind", ["zeros", "reuse"])
def test_without_interpolation_the_shortcut_alone_passes_where_nothing_is_sampled(kind):
    net = sampling.convert(
        Residual(nn.Conv2d(4, 4, 3, 1, 1)), sampling.Config(interpolation=kind, bias=-100.0, grid=None)
    )
    x = images(2, 8, 4)
    assert torch.equal(net.eval()(x), x)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_parameter_and_training_has_a_price(name):
    config = sampling.Config(sigma=1.0)
    _, net = pair(name)
    loss = objective(config.gamma, config.tau)(net.train(), images(2, 64), torch.tensor([0, 1]), 0.5)
    loss.backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    assert all(s.score.weight.grad.abs().sum() > 0 for s in samplers(net).values())


def test_a_sampled_layer_costs_its_share_and_a_gate_all_of_it():
    plain, net = pair("gated", interpolation="zeros")
    dense, half = sampling.cost(plain, 32).by_layer, sampling.expected(net, 32, 0.5)
    masked = {f"{name}.{conv}" for name, block in sampled_blocks(net).items() for conv in block.masked}
    assert len(masked) == 5 and all(half[name] == dense[name] / (1 + (name in masked)) for name in dense)


def test_the_sampled_network_can_be_copied_and_saved(tmp_path):
    _, net = pair("gates in groups", density=0.5)
    torch.save(net, tmp_path / "net.pt")
    with torch.no_grad():
        for other in (copy.deepcopy(net), torch.load(tmp_path / "net.pt", weights_only=False)):
            assert torch.equal(other(images()), net(images())) and sampled_blocks(other) == sampled_blocks(net)


@pytest.mark.parametrize(
    "branch",
    [
        [nn.Conv2d(4, 4, 3, 1, 2)],  # another size
        [nn.Conv2d(4, 4, 3, 2, 1), nn.Upsample(scale_factor=2)],
        [nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 4, 1)],  # what is read by more than one position would have to be filled
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)],  # no map
        [nn.Conv2d(4, 4, 1), nn.LayerNorm([4, 8, 8])],  # over all positions
        [nn.Conv2d(4, 4, 1), nn.Linear(8, 8)],  # along lines
        [nn.BatchNorm2d(4), nn.ReLU()],  # nothing to sample
    ],
)
def test_a_branch_that_cannot_be_computed_by_position_is_left_alone(branch):
    with pytest.raises(InputError, match="Residual has no residual block to sample"):
        sampling.convert(Residual(*branch), sampling.Config())


def test_a_block_that_may_be_given_more_than_its_map_is_left_alone():
    class Optional(Residual):
        def forward(self, x, shortcut=None):
            return self.layers(x) + (x if shortcut is None else shortcut)

    with pytest.raises(InputError, match="Optional has no residual block to sample"):
        sampling.convert(Optional(nn.Conv2d(4, 4, 3, 1, 1)), sampling.Config())


def test_what_has_no_form_yet_is_refused_by_name():
    _, net = pair("depthwise")
    with pytest.raises(InputError, match=r"^features\.\S+: only the sampled blocks of ResNets have a form"):
        sampling.deploy(net, images(1, 32))
    with pytest.raises(InputError, match="MobileNetV2 has no block that can be pruned"):
        sampling.convert(network("depthwise"), sampling.Config(pruned=0.5))


def test_figures_of_a_backbone_are_those_of_resnets_alone():
    _, net = pair("depthwise", density=0.5)
    found = sampling.evaluate(net, Batches(load("scenes", "val", n=8, size_px=32, seed=0), 8))
    assert found["macs_expected"] > 0 and "macs_backbone" not in found
