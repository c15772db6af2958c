"""Deployed sampled networks: rows and tiles, draws, outputs, choices."""

import numpy as np
import pytest
import torch
from networks import images, network, scored, small_detector, small_segmenter

from dynlib.papers.sampling import DENSITIES, Config, convert, deploy
from dynlib.papers.sampling.interpolate import rbf_kernel
from dynlib.papers.sampling.layout import TILE, Layout, cropped, window_weights
from dynlib.papers.sampling.masks import Sampler, tallied
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


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average"])
def test_windows_without_a_sample_are_deployed_as_they_are_masked(kind):
    net = convert(network("bottleneck"), Config(density=0.02, grid=None, sigma=1.0, interpolation=kind)).eval()
    x = images(2, 160)
    with torch.no_grad(), tallied(net) as tally:
        expected = net(x)
    assert 0.3 < tally.empty_windows < 0.7
    torch.testing.assert_close(deploy(net, x)(x), expected, **CLOSE)


def test_a_segmentation_network_and_a_detectors_backbone_are_deployed():
    net = scored(convert(small_segmenter(), Config()))
    backbone = scored(convert(small_detector().eval(), Config())).backbone
    x = images(1, 64)
    with torch.no_grad():
        torch.testing.assert_close(deploy(net, x)(x)["out"], net(x)["out"], rtol=1e-3, atol=1e-3)
        maps, theirs = deploy(backbone, x)(x), backbone(x)
        for name, value in theirs.items():
            torch.testing.assert_close(maps[name], value, rtol=1e-3, atol=1e-3)


def test_late_stages_alone_are_sampled_and_deployed():
    net, x = network("bottleneck"), images(2, 96)
    net.layer3, net.layer4 = (convert(stage, Config(density=0.4)) for stage in (net.layer3, net.layer4))
    with torch.no_grad():
        torch.testing.assert_close(deploy(net.eval(), x)(x), net(x), **CLOSE)


# -------------------------------------------------------------------------------------------------------------- choices


def test_choices_force_the_density_of_each_image():
    net, x = scored(convert(network("bottleneck"), Config(grid=None))), images(3, 96)
    fast = deploy(net, x)
    for index, density in enumerate(DENSITIES):
        forced = (
            convert(network("bottleneck"), Config(grid=None, density=density)) if density < 1 else network("bottleneck")
        )
        forced.load_state_dict(net.state_dict(), strict=False)
        with torch.no_grad():
            torch.testing.assert_close(fast(x, torch.full((3,), index)), forced.eval()(x), **CLOSE)
    mixed = fast(x, torch.tensor([0, 1, 3]))
    torch.testing.assert_close(mixed[2], network("bottleneck")(x)[2], **CLOSE)
    assert not torch.allclose(mixed[0], network("bottleneck")(x)[0], **CLOSE)
