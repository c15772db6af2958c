"""Deployed sampled networks: rows and tiles, draws, outputs, choices, refusals."""

import numpy as np
import pytest
import torch
from test_sampling import images, scored, small_detector, thin
from torchvision.models import resnet
from torchvision.models.segmentation import fcn_resnet50

from dynlib.errors import InputError
from dynlib.papers.sampling import DENSITIES, Config, convert, deploy
from dynlib.papers.sampling.interpolate import rbf_kernel
from dynlib.papers.sampling.layout import TILE, Layout, cropped, window_weights
from dynlib.papers.sampling.masks import Sampler, observed, tallied
from dynlib.runtime import drawn

CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32: other orders of summation in every product


# -------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("size", [(8, 8), (9, 17), (62, 104), (3, 1)])
def test_a_map_in_tiles_and_back_is_the_map(size):
    layout, values = Layout(*size), np.arange(size[0] * size[1])
    rows = values[layout.from_map()]
    assert len(rows) == layout.rows and layout.rows % TILE**2 == 0
    assert np.array_equal(rows[layout.to_map()], values)


def test_a_window_reads_what_lies_around_its_tile():
    layout = Layout(20, 20)
    rows = layout.windows(2)[4, :-1].reshape(TILE + 4, TILE + 4)  # the tile in the middle
    i, j = np.mgrid[6:18, 6:18]
    assert np.array_equal(rows, layout.row_at(i, j))
    assert layout.windows(2)[0, 0] == -1 and (layout.windows(2)[:, -1] == -1).all()


def test_the_weights_of_a_window_are_those_of_the_kernel():
    kernel = np.arange(25.0).reshape(5, 5)
    weights = window_weights(kernel)[:-1].reshape(TILE + 4, TILE + 4, TILE, TILE)
    assert weights[2 + 3, 2 + 4, 3, 4] == np.float32(1e20)
    assert np.array_equal(weights[3:8, 4:9, 3, 4][0], kernel[0]) and not weights[0, 0, 3, 4]


def test_rings_that_weigh_nothing_beside_epsilon_are_cropped_and_an_exact_mean_keeps_all():
    kernel = rbf_kernel(torch.tensor(3.0), 7).numpy()
    assert len(cropped(kernel, 1e-5)) == 5 and len(cropped(kernel, 0.0)) == len(cropped(kernel, None)) == 7


@pytest.mark.parametrize(("seed", "number"), [(0, 0), (0, 65), (3, 7), (2**32 - 1, 12)])
def test_numpy_draws_what_torch_draws(seed, number):
    how = {"deterministic": False, "bias": 0.0, "interval": None, "density": None}
    sampler = Sampler(1, 1, number, seed=seed, **how)
    expected = torch.rand(2, 1, 5, 7, generator=sampler.generator())
    assert np.array_equal(drawn(seed, number, (2, 1, 5, 7)), expected.numpy())


# -------------------------------------------------------------------------------------------------------------- outputs


CASES = [
    (resnet.Bottleneck, {}, {}),
    (resnet.Bottleneck, {}, {"masks": 1}),
    (resnet.Bottleneck, {}, {"masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "convolution"}),
    (resnet.Bottleneck, {}, {"interpolation": "average", "masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "zeros", "masks": 3}),
    (resnet.Bottleneck, {}, {"interpolation": "reuse"}),
    (resnet.Bottleneck, {}, {"interpolation": "reuse", "masks": 3}),
    (resnet.Bottleneck, {}, {"sampling": "deterministic", "grid": None}),
    (resnet.Bottleneck, {"groups": 4, "width_per_group": 16}, {}),
    (resnet.Bottleneck, {"replace_stride_with_dilation": [False, True, True]}, {}),
    (resnet.BasicBlock, {}, {}),
    (resnet.BasicBlock, {}, {"masks": 1, "interpolation": "average"}),
    (resnet.BasicBlock, {}, {"interpolation": "reuse"}),
]


@pytest.mark.parametrize(("block", "network", "settings"), CASES)
def test_the_deployed_network_equals_the_masked_dense_form(block, network, settings):
    net = scored(convert(thin(block, **network), Config(**{"sigma": 1.0} | settings)))
    x = images(72)
    with torch.no_grad(), observed(net) as samples:
        expected = net(x)
    assert 0.1 < sum(sample.mask.mean() for sample in samples.values()) / len(samples) < 0.9
    torch.testing.assert_close(deploy(net, x)(x), expected, **CLOSE)


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average"])
def test_windows_without_a_sample_are_deployed_as_they_are_masked(kind):
    net = convert(thin(), Config(density=0.02, grid=None, sigma=1.0, interpolation=kind)).eval()
    x = images(160)
    with torch.no_grad(), tallied(net) as tally:
        expected = net(x)
    assert 0.3 < tally.empty_windows < 0.7
    torch.testing.assert_close(deploy(net, x)(x), expected, **CLOSE)


@pytest.mark.parametrize("settings", [{"density": 1.0}, {"sampling": "uniform", "density": 0.5}])
def test_dense_and_shrunk_networks_are_one_graph(settings):
    net, x = convert(thin(), Config(**settings)), images()
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x)(x), net(x), **CLOSE)


def test_another_batch_than_the_example_is_taken():
    net = scored(convert(thin(), Config()))
    fast = deploy(net, images(64))
    for x in (images(64, 1), images(64, 3)):
        with torch.no_grad():
            torch.testing.assert_close(fast(x), net(x), **CLOSE)
            torch.testing.assert_close(fast(x), fast(x))  # nothing is left over from the first call


def test_a_segmentation_network_and_a_detectors_backbone_are_deployed():
    torch.manual_seed(0)
    net = scored(convert(fcn_resnet50(weights=None, weights_backbone=None, num_classes=4).eval(), Config()))
    backbone = scored(convert(small_detector().eval(), Config())).backbone
    x = images(64, 1)
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x)(x)["out"], net(x)["out"], rtol=1e-3, atol=1e-3)
        maps, theirs = deploy(backbone, x)(x), backbone(x)
        for name, value in theirs.items():
            torch.testing.assert_close(maps[name], value, rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------------------------------------------------- choices


def test_choices_force_the_density_of_each_image():
    net, x = scored(convert(thin(), Config(grid=None))), images(96, 3)
    fast = deploy(net, x)
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
    fast = deploy(convert(thin(), Config()), images())
    for choices in ([0], [0, 4], [-1, 0]):
        with pytest.raises(InputError, match="choices are"):
            fast(images(), torch.tensor(choices))


def test_another_precision_is_refused():
    with pytest.raises(InputError, match="float32 on the CPU"):
        deploy(convert(thin(), Config()).double(), images().double())
