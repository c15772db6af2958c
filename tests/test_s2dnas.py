"""Networks with stages: limits, causality, who owns a channel, and refusals."""

import copy
from dataclasses import replace

import pytest
import torch
from networks import MIXED, images, network, on_meta
from torch import nn

from dynlib import train
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.data import Batches, Samples
from dynlib.errors import InputError
from dynlib.papers import s2dnas
from dynlib.papers.s2dnas import Config, convert
from dynlib.papers.s2dnas.layers import Heads, PieceConv2d, PieceShortcut
from dynlib.papers.s2dnas.owners import edges, is_read


def chain(*layers):
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def masked(model, x):
    """What training computes: dense kernels under their masks, here with the batch norms of evaluation."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        layer.training = isinstance(layer, PieceConv2d)
    return model(x).exits


# ------------------------------------------------------------------------------------------------------------- counts


def test_a_layer_costs_d_j_times_the_sum_of_what_is_read():
    convolution = convert(chain(nn.Conv2d(8, 8, 3, padding=1)), Config(cuts=((0, 1, 3, 8),))).get_submodule("2")
    assert convolution.stage_macs(1) == [9 * 1 * 1, 9 * 2 * 3, 9 * 5 * 8]


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("threshold", "exit"), [(0.0, 0), (1.5, 2)])
def test_thresholds_at_the_extremes_give_all_first_and_all_last(threshold, exit):
    result = convert(network("pad"), Config(exit_thresholds=(threshold,)))(images())
    assert result.taken.tolist() == [exit, exit]
    assert torch.equal(result.logits, result.exits[exit])


@pytest.mark.parametrize("config", [Config(), MIXED])
def test_block_by_block_is_the_masked_dense_network(config):
    model, x = convert(network("pad"), config), images()
    torch.testing.assert_close(model(x).exits, masked(model, x), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- causality


def perturbed(model, stage):
    """The network with other weights wherever this stage or a later one owns a channel."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for node in model.graph.nodes:
            layer = model.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                late = node.meta["owners"] >= stage
                layer.weight[late] += torch.randn_like(layer.weight[late])
        heads = next(layer for layer in model.modules() if isinstance(layer, Heads))
        for head in list(heads)[stage:]:
            head.weight.normal_()
    return model


NETWORKS = [("cifar_resnet20", MIXED), ("projection", MIXED), ("dense", Config(reuse=((1, 0, 1),)))]
NETWORKS += [(name, Config()) for name in ("vgg", "depthwise", "basic", "gated", "branches")]


@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_changing_a_late_piece_leaves_early_logits_bit_identical(name, config):
    model, x = convert(network(name), config), images()
    for training in (False, True):
        for layer in model.modules():
            layer.training = training and isinstance(layer, PieceConv2d)  # dense and masked
        with torch.no_grad():
            before = model(x).exits
            for stage in (1, 2):
                after = perturbed(model, stage)(x).exits
                assert torch.equal(after[:stage], before[:stage])
                assert not torch.equal(after[stage:], before[stage:])


# ------------------------------------------------------------------------------------------------------------- owners


@pytest.mark.parametrize(
    ("channels", "cuts"),
    [(12, (0, 2, 4, 8)), (16, (0, 1, 3, 8)), (16, (0, 2, 4, 9)), (6, (0, 2, 5, 8)), (3, (0, 1, 2))],
)
def test_edges_are_the_nearest_channels_halves_up(channels, cuts):
    exact = [channels * cut / cuts[-1] for cut in cuts]
    assert all(-0.5 < edge - value <= 0.5 for edge, value in zip(edges(channels, cuts), exact, strict=True))


def test_groups_that_do_not_divide_the_channels_are_cut_and_counted_at_the_nearest_channel():
    assert edges(16, (0, 2, 4, 9)) == (0, 4, 7, 16)
    convolution = convert(chain(nn.Conv2d(8, 8, 1)), Config(cuts=((0, 2, 4, 9),))).get_submodule("2")
    assert [len(rows) for rows in convolution.rows] == [2, 2, 4]  # at 1.8 and 3.6
    assert convolution.stage_macs(1) == [2 * 2, 2 * 4, 4 * 8]


def test_reuse_bits_run_source_by_source():
    table = [[is_read((1, 0, 1), source, reader, 3) for reader in range(3)] for source in range(3)]
    assert table == [[True, True, False], [False, True, True], [False, False, True]]  # m_12, m_13, m_23


def test_a_parameter_free_shortcut_pads_each_stage_and_drops_a_surplus():
    shortcut = PieceShortcut(stride=1)
    shortcut.cut([torch.tensor([0]), torch.tensor([1, 2, 3, 4])], [torch.tensor([0, 1]), torch.tensor([2, 3])])
    x = torch.arange(1.0, 5).view(1, 4, 1, 1)
    assert shortcut(x).flatten().tolist() == [1, 3, 4, 0, 0]


def test_flattening_a_map_gives_each_of_its_numbers_the_channel_s_owner():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    model = convert(net, Config(cuts=((0, 1, 3, 8),)))
    assert [len(read) for read in model.get_submodule("3").columns] == [4, 12, 32]


def test_map_sizes_that_an_addition_ties_share_their_cuts():
    assert convert(on_meta("resnet18", 10), Config()).meta["groups"] == 4  # the stem and the first stage
    assert convert(on_meta("resnet50", 10), Config()).meta["groups"] == 5
    assert convert(on_meta("cifar_resnet20", 10), Config()).meta["groups"] == 3
    assert convert(on_meta("cifar_vgg16_bn", 10), Config()).meta["groups"] == 5


def test_heads_read_every_stage_up_to_their_own_whatever_the_reuse():
    model = convert(network("pad"), Config(reuse=((0, 0, 0),)))
    assert [len(read) for read in model.fc.columns] == [8, 16, 32]


# ----------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    pixels = (labels[:, None, None, None] * 80 + torch.randint(0, 60, (24, 3, 16, 16), generator=generator)).byte()
    return Batches(Samples("toy", "train", pixels, labels, ("a", "b", "c"), "none"), batch_size=8)


def test_training_teaches_every_exit_and_masked_weights_get_no_gradient(batches):
    torch.manual_seed(0)
    model = convert(CifarResNet(8, 3, width=8), MIXED)
    (phase,) = s2dnas.phases(MIXED)
    curve = train.fit(model, batches, phase.of(train.Schedule(6, 0.05)), seed=0, objective=phase.objective)
    assert curve[-1]["loss"] < curve[0]["loss"] / 2
    found = s2dnas.evaluate(model, batches)
    assert min(found["exit_top1"]) > 0.9 and sum(found["exit_share"]) == pytest.approx(1)
    costs = list(s2dnas.macs_by_choice(model, 16).values())
    assert costs[0] <= found["expected_macs"] <= costs[-1]
    s2dnas.summed_loss(model.train(), images(4, 16), torch.tensor([0, 1, 2, 0]), 0.0).backward()
    for layer in (layer for layer in model.modules() if isinstance(layer, PieceConv2d)):
        live = layer.mask.expand_as(layer.weight) > 0
        assert not layer.weight.grad[~live].any() and layer.weight.grad[live].any()


def test_thresholds_are_chosen_on_held_out_images_and_stay_in_the_network(batches):
    torch.manual_seed(0)
    model = convert(CifarResNet(8, 3, width=8), MIXED)
    held = replace(batches, samples=batches.samples.subset(range(12)))
    valid = replace(batches, samples=batches.samples.subset(range(12, 24)))
    chosen = s2dnas.choose(model, held, valid)
    kept = chosen["rules"]["budget"][0]
    assert model.exit_rule.thresholds.tolist() == pytest.approx(kept["thresholds"])
    assert chosen["top1"] == kept["top1"] == train.evaluate(model, valid)["top1"]
    assert s2dnas.evaluate(model, valid).items() <= chosen.items()
    assert chosen["exit_macs"] == list(s2dnas.macs_by_choice(model, 16).values())


def test_recutting_keeps_the_weights_and_equals_converting_anew():
    model, x = convert(network("pad"), Config()), images()
    s2dnas.recut(model, MIXED)
    assert torch.equal(model(x).exits, convert(network("pad"), MIXED)(x).exits)
    with pytest.raises(InputError, match="2 stages; this network has 3 heads"):
        s2dnas.recut(model, Config(cuts=((0, 4, 8),)))


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("net", "config", "message"),
    [
        (chain(nn.Conv2d(8, 16, 3, groups=4), nn.Conv2d(16, 8, 1)), Config(), "2: 4 groups from 8 to 16 channels"),
        (chain(nn.ConvTranspose2d(8, 8, 3)), Config(), "2: a transposed conv cannot be cut"),
        (chain(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)), Config(), "none of its 2 channels"),
        (chain(), Config(cuts=((0, 4, 8),) * 2), "cuts has 2 rows; this network takes 1, or 1"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), Config(), "no convolution before it"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(net, config, message):
    with pytest.raises(InputError, match=message):
        convert(net, config)
