"""Grouped convolutions that the cuts go through, and channels that are shuffled: each stage has its part of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ShuffleNetV2

from dynlib import cost, export
from dynlib.errors import InputError
from dynlib.papers import s2dnas
from dynlib.papers.s2dnas.layers import PieceGroups
from tests.networks import images, network, strange

CUTS = {"whole": (0, 4, 8), "one": (0, 3, 8), "three": (0, 1, 4, 8)}  # of 16 channels in groups of 8, and of 32
REUSE = {"everything": None, "nothing": (0, 0, 0)}


def regnet():
    return network("gates in groups")


def shufflenet():
    torch.manual_seed(0)
    return strange(ShuffleNetV2([2, 1, 1], [8, 16, 32, 64, 64], num_classes=10))


def pieces(cuts, groups=2, reuse=None):
    """A grouped convolution of 16 channels cut alike on both sides."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3, 1, 1, groups=groups)
    layer = PieceGroups(conv)
    owners = torch.bucketize(torch.arange(16), torch.tensor([2 * cut for cut in cuts[1:]]), right=True)
    stages = range(len(cuts) - 1)
    rows = [(owners == stage).nonzero().flatten() for stage in stages]
    columns = [torch.cat([rows[i] for i in stages if i == stage or (i < stage and reuse is None)]) for stage in stages]
    layer.cut(rows, columns)
    return conv, layer, owners


@pytest.mark.parametrize("reuse", REUSE.values(), ids=REUSE)
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_an_output_reads_what_its_group_and_its_stage_have(cuts, reuse):
    conv, layer, owners = pieces(cuts, reuse=reuse)
    x, slow = images(2, 5, 16), torch.zeros(2, 16, 5, 5)
    for out in range(16):
        for inp in range(16):
            may = owners[inp] == owners[out] if reuse else owners[inp] <= owners[out]
            if out // 8 == inp // 8 and may:
                slow[:, out] += F.conv2d(x[:, [inp]], conv.weight[out, inp % 8][None, None], padding=1)[:, 0]
    slow += conv.bias.view(-1, 1, 1)
    for training in (True, False):
        torch.testing.assert_close(layer.train(training)(x), slow)


@pytest.mark.parametrize("build", [regnet, shufflenet])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_a_network_whose_groups_are_cut_runs_costs_and_is_deployed_alike(cuts, build):
    plain = build()
    net = s2dnas.convert(plain, s2dnas.Config(cuts=(cuts,), exit_thresholds=(2.0,))).eval()
    x = images(2, 64)
    with torch.no_grad():
        expected = net(x).exits
        for part in net.modules():
            part.training = isinstance(part, PieceGroups)  # masked
        assert export.difference(net(x).exits, expected) <= 1e-5
        if cuts == CUTS["three"]:  # which has parts of groups, a whole one and several whole ones together
            assert export.difference(s2dnas.deploy(net.eval(), x[:1], threads=1)(x).exits, expected) <= 1e-5
    assert s2dnas.cost(net, 64).macs == cost.count(net, cost.example(64)).macs
    assert set(net.state_dict()) >= {name for name in plain.state_dict() if not name.startswith("fc")}


@pytest.mark.parametrize("build", [regnet, shufflenet])
def test_one_stage_is_the_network(build):
    plain, x = build(), images(2, 64)
    net = s2dnas.convert(plain, s2dnas.Config(cuts=((0, 8),)))
    with torch.no_grad():
        assert export.difference(net(x).logits, plain(x)) <= 1e-5


def test_an_early_stage_is_blind_to_the_channels_of_a_later_one():
    _, layer, owners = pieces(CUTS["three"])
    x = images(1, 5, 16).requires_grad_()
    for stage in range(3):
        (grad,) = torch.autograd.grad(layer(x)[:, owners == stage].sum(), x)
        assert grad[:, owners > stage].abs().sum() == 0 < grad[:, owners == stage].abs().sum()


def test_no_exit_of_a_shuffled_network_depends_on_a_later_stage():
    net, x = s2dnas.convert(shufflenet(), s2dnas.Config(cuts=((0, 2, 4, 8),))).eval(), images(2, 64)
    with torch.no_grad():
        before = net(x).exits
        for layer in net.modules():
            if isinstance(layer, s2dnas.layers.PieceConv2d):
                layer.weight[layer.rows[-1]] += 1
        after = net(x).exits
    assert torch.equal(after[:2], before[:2]) and not torch.equal(after[2], before[2])


def test_parts_of_channels_that_were_not_made_alike_are_refused_by_name():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 16, 1), nn.Linear(16, 10)

        def forward(self, x):
            _, half = self.stem(x).chunk(2, 1)
            return self.fc(self.body(half).mean((2, 3)))

    with pytest.raises(InputError, match=r"^getitem_1_pick: its channels were not made in equal numbers"):
        s2dnas.convert(Halved(), s2dnas.Config())


def test_what_stands_inside_of_a_shuffle_is_not_passed_over():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.fc = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

        def forward(self, x):
            grouped = self.stem(x).view(x.size(0), 2, 8, x.size(2), x.size(3)).transpose(1, 2).relu()
            return self.fc(self.body(grouped.reshape(x.size(0), 16, x.size(2), x.size(3))).mean((2, 3)))

    with pytest.raises(InputError, match=r"^view: view of 16 channels .* mixes channels"):
        s2dnas.convert(Shuffled(), s2dnas.Config(cuts=((0, 8),)))
