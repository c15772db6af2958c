"""Deployed sampled networks: kernels against tensor operations, outputs, executed MACs, choices, refusals."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from test_sampling import images, scored, small_detector, thin
from torchvision.models import resnet
from torchvision.models.segmentation import fcn_resnet50

from dynlib import cost as counting
from dynlib.errors import InputError
from dynlib.papers import sampling
from dynlib.papers.sampling import (
    DENSITIES,
    Config,
    convert,
    deploy,
    gather as sampling_gather,
    sparse as sampling_sparse,
    tensors as sampling_tensors,
)
from dynlib.papers.sampling.block import sampled_blocks
from dynlib.papers.sampling.masks import observed, tallied

numba = pytest.importorskip("numba")
kernels = importlib.import_module("dynlib.papers.sampling.kernels")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32: other orders of summation in every product


def sampled_map(n=2, h=9, w=11, density=0.4, channels=24):
    """row_of of a random mask, and rows for it."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(n, h, w, generator=generator) < density
    row_of = torch.where(mask, mask.flatten().cumsum(0).view_as(mask) - 1, -1).int()
    return row_of, torch.randn(int(mask.sum()), channels, generator=generator)


def bags_of(row_of, epsilon=1e-5):
    missing = (row_of.flatten() < 0).nonzero().flatten().int()
    kernel = torch.rand(7, 7, generator=torch.Generator().manual_seed(1))
    return missing, kernel, sampling_tensors.bags(row_of, missing, kernel, epsilon)


# -------------------------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize("conv", [(3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("name", ["numba", "tensors"])
def test_taps_read_what_unfolding_the_map_reads(name, conv):
    side, stride, dilation = conv
    row_of, rows = sampled_map()
    size = tuple(-(-length // stride) for length in row_of.shape[1:])
    positions = torch.arange(0, 2 * size[0] * size[1], 3)
    found = {"numba": kernels, "tensors": sampling_tensors}[name]
    indices, missing = found.taps(row_of, positions, size, conv, len(rows))
    values = torch.randn(2, 1, *row_of.shape[1:])  # one number a position
    table = torch.cat([torch.zeros(1), values.flatten()[row_of.flatten() >= 0], values.flatten()[missing.long()]])
    unfolded = F.unfold(values, side, dilation, dilation * (side // 2), stride).transpose(1, 2).flatten(0, 1)
    assert torch.equal(table[indices.long()], unfolded[positions])
    assert len(missing.unique()) == len(missing) and (row_of.flatten()[missing.long()] == -1).all()


@pytest.mark.parametrize("epsilon", [None, 0.0, 1e-5])
def test_bags_are_the_same_with_and_without_numba(epsilon):
    row_of, _ = sampled_map(density=0.05)
    missing, kernel, theirs = bags_of(row_of, epsilon)
    for ours, their in zip(kernels.bags(row_of, missing, kernel, epsilon), theirs, strict=True):
        torch.testing.assert_close(ours, their)


def test_bags_are_summed_the_same_with_and_without_numba():
    row_of, rows = sampled_map()
    _, _, bags = bags_of(row_of)
    ours, theirs = (torch.empty(len(bags[0]) - 1, rows.shape[1]) for _ in range(2))
    kernels.weighted(rows, *bags, ours)
    sampling_tensors.weighted(rows, *bags, theirs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("bare", [False, True])
def test_the_tail_is_the_same_with_and_without_numba(bare):
    row_of, rows = sampled_map()
    _, _, bags = bags_of(row_of)
    shortcut, bias = torch.randn(row_of.numel(), rows.shape[1]), torch.randn(rows.shape[1])
    ours, theirs = shortcut.clone(), shortcut.clone()
    kernels.tail(rows, row_of, *bags, bias, bare, ours)
    sampling_tensors.tail(rows, row_of, *bags, bias, bare, theirs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("stride", "size"), [(1, (9, 11)), (2, (5, 6))])
@pytest.mark.parametrize("module", [kernels, sampling_tensors], ids=["numba", "tensors"])
def test_nine_shifted_products_are_the_convolution_of_a_score(module, stride, size):
    x, weight = torch.randn(2, 6, 9, 11), torch.randn(1, 6, 3, 3)
    parts = torch.einsum("nchw,ct->nhwt", x, weight[0].flatten(1))
    parts = torch.cat([torch.zeros(2, 9, 11, 9), parts], -1).contiguous()
    expected = F.conv2d(x, weight, torch.tensor([0.5]), stride, 1)
    torch.testing.assert_close(module.shifted_sum(parts, 9, 0.5, stride, size), expected)


# -------------------------------------------------------------------------------------------------------------- outputs


CASES = [
    (resnet.Bottleneck, {}, {}),
    (resnet.Bottleneck, {}, {"masks": 1}),
    (resnet.Bottleneck, {}, {"masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "convolution"}),
    (resnet.Bottleneck, {}, {"interpolation": "average", "masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "zeros", "masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "reuse"}),
    (resnet.Bottleneck, {}, {"sampling": "deterministic", "grid": None}),
    (resnet.Bottleneck, {"groups": 4, "width_per_group": 16}, {}),
    (resnet.Bottleneck, {"replace_stride_with_dilation": [False, True, True]}, {}),
    (resnet.BasicBlock, {}, {}),
    (resnet.BasicBlock, {}, {"masks": 1, "interpolation": "average"}),
    (resnet.BasicBlock, {}, {"interpolation": "reuse"}),
]


@pytest.mark.parametrize("break_even", [1.0, 0.0], ids=["sparse", "dense"])
@pytest.mark.parametrize(("block", "network", "settings"), CASES)
def test_the_deployed_network_equals_the_masked_dense_form(block, network, settings, break_even):
    net = scored(convert(thin(block, **network), Config(**{"sigma": 1.0} | settings)))
    x = images(72)
    with torch.no_grad(), observed(net) as samples:
        expected = net(x)
    assert 0.1 < sum(sample.mask.mean() for sample in samples.values()) / len(samples) < 0.9
    torch.testing.assert_close(deploy(net, x, break_even)(x), expected, **CLOSE)


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average"])
def test_windows_without_a_sample_are_deployed_as_they_are_masked(kind):
    net = convert(thin(), Config(density=0.02, grid=None, sigma=1.0, interpolation=kind)).eval()
    x = images(160)
    with torch.no_grad(), tallied(net) as tally:
        expected = net(x)
    assert 0.3 < tally.empty_windows < 0.7
    torch.testing.assert_close(deploy(net, x, 1.0)(x), expected, **CLOSE)


def test_without_numba_it_is_the_same(monkeypatch):
    net, x = scored(convert(thin(), Config(sigma=1.0))), images()
    for module in (sampling_gather, sampling_sparse):
        monkeypatch.setattr(module, "KERNELS", sampling_tensors)
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x, 1.0)(x), net(x), **CLOSE)


@pytest.mark.parametrize("settings", [{"density": 1.0}, {"sampling": "uniform", "density": 0.5}])
def test_dense_and_shrunk_networks_are_frozen_whole(settings):
    net, x = convert(thin(), Config(**settings)), images()
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x)(x), net(x), **CLOSE)


def test_another_batch_and_another_size_than_the_examples_are_taken():
    net = scored(convert(thin(), Config()))
    fast = deploy(net, images(64), 1.0)
    for x in (images(96, 1), images(64, 3)):
        with torch.no_grad():
            torch.testing.assert_close(fast(x), net(x), **CLOSE)
            torch.testing.assert_close(fast(x), fast(x))  # nothing is left over from the first call


def test_a_segmentation_network_and_a_detectors_backbone_are_deployed():
    torch.manual_seed(0)
    net = scored(convert(fcn_resnet50(weights=None, weights_backbone=None, num_classes=4).eval(), Config()))
    backbone = scored(convert(small_detector().eval(), Config())).backbone
    x = images(64, 1)
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x, 1.0)(x)["out"], net(x)["out"], rtol=1e-3, atol=1e-3)
        maps, theirs = deploy(backbone, x, 1.0)(x), backbone(x)
        for name, value in theirs.items():
            torch.testing.assert_close(maps[name], value, rtol=1e-3, atol=1e-3)


def test_the_measured_break_even_is_a_share_and_alike_blocks_have_one():
    net = convert(resnet.ResNet(resnet.Bottleneck, [3, 1, 1, 1], 5), Config()).eval()
    fast = deploy(net, images(32, 1))
    limits = [block.break_even for block in fast.modules() if isinstance(block, sampling_sparse.SparseBlock)]
    assert all(0 <= limit <= 1 for limit in limits) and limits[1] == limits[2]


# ----------------------------------------------------------------------------------------------------- MACs and choices


def pairs(mask, window, wanted):
    """Samples in the windows of the positions that are wanted."""
    return int((F.conv2d(mask, torch.ones(1, 1, window, window), padding=window // 2) * wanted).sum())


@pytest.mark.parametrize("size", [64, 72])
def test_executed_macs_are_those_of_the_masks(size):
    net, x = scored(convert(thin(), Config(interpolation="average"))), images(size, 1)
    with torch.no_grad(), observed(net) as samples:
        net(x)
    dense, expected = sampling.cost(net, size).by_layer, 0
    names = {f"{name}." for name in sampled_blocks(net)}
    expected += sum(macs for layer, macs in dense.items() if not any(layer.startswith(name) for name in names))
    for name, block in sampled_blocks(net).items():
        m1, m2 = (samples[f"{name}.samplers.{i}"].mask for i in (0, 1))
        stride, width = block.conv2.stride[0], block.conv1.out_channels
        rows, columns = m1.shape[-2:]
        expected += 2 * 9 * block.conv1.in_channels * rows * columns  # both scores at every position of the input
        expected += dense.get(f"{name}.downsample.0", 0)
        expected += int(m1.sum()) * block.conv1.weight.numel()
        expected += int(m2.sum()) * (block.conv2.weight.numel() + block.conv3.weight.numel())
        read = F.conv_transpose2d(m2, torch.ones(1, 1, 3, 3), stride=stride, padding=1, output_padding=stride - 1)
        needed = (read[..., :rows, :columns] > 0) * (1 - m1)
        expected += width * pairs(m1, 7, needed) + 4 * width * pairs(m2, 7, 1 - m2)
    counted = counting.count(deploy(net, x, 1.0), x)
    assert counted.macs == expected < sampling.cost(net, size).macs


def test_choices_force_the_density_of_each_image():
    net, x = scored(convert(thin(), Config(grid=None))), images(96, 3)
    fast = deploy(net, x, 1.0)
    for index, density in enumerate(DENSITIES):
        forced = convert(thin(), Config(grid=None, density=density)) if density < 1 else thin()
        forced.load_state_dict(net.state_dict(), strict=False)
        with torch.no_grad():
            torch.testing.assert_close(fast(x, torch.full((3,), index)), forced.eval()(x), **CLOSE)
    mixed = fast(x, torch.tensor([0, 1, 3]))
    torch.testing.assert_close(mixed[2], thin()(x)[2], **CLOSE)
    assert not torch.allclose(mixed[0], thin()(x)[0], **CLOSE)


# ------------------------------------------------------------------------------------------------------------- refusals


def test_choices_that_are_no_density_are_refused():
    fast = deploy(convert(thin(), Config()), images(), 1.0)
    for choices in ([0], [0, 4], [-1, 0]):
        with pytest.raises(InputError, match="choices are"):
            fast(images(), torch.tensor(choices))


def test_three_masks_that_reuse_are_refused_and_so_is_half_precision():
    with pytest.raises(InputError, match="three masks that reuse"):
        deploy(convert(thin(), Config(masks=3, interpolation="reuse")), images(), 1.0)
    with pytest.raises(InputError, match="float32 on the CPU"):
        deploy(convert(thin(), Config()).double(), images().double(), 1.0)
