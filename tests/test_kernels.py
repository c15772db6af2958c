"""The merging pass against plain torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from dynlib import kernels


def maps(height, width, channels, *, strange=False):
    """High, low and residual maps in channels-last memory; `strange` leaves the residual in another layout."""
    generator = torch.Generator().manual_seed(height * channels)
    sides = ((height, width), (height // 2, width // 2), (height, width))
    plain = [torch.randn(2, channels, *side, generator=generator) for side in sides]
    high, low, residual = (x.to(memory_format=torch.channels_last) for x in plain)
    return high, low, plain[2] if strange else residual


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize(("height", "width", "channels"), [(2, 2, 1), (6, 4, 5), (8, 8, 32)])
def test_merging_equals_up_sampling_adding_clipping_and_pooling_one_after_the_other(
    height, width, channels, with_residual, relu
):
    high, low, residual = maps(height, width, channels)
    residual = residual if with_residual else None
    expected = high + F.interpolate(low, scale_factor=2.0) + (residual if with_residual else 0)
    expected = expected.relu() if relu else expected
    for merge in (kernels.merge, lambda *args: kernels.merge_and_halve(*args)[0]):
        assert torch.allclose(merge(high.clone(), low, residual, relu), expected, atol=1e-6)
    means = kernels.merge_and_halve(high.clone(), low, residual, relu)[1]
    assert torch.allclose(means, F.avg_pool2d(expected, 2), atol=1e-6)
    assert means.is_contiguous(memory_format=torch.channels_last)


def test_merging_writes_over_the_high_map_and_leaves_the_others_alone():
    high, low, residual = maps(4, 6, 3)
    copies = low.clone(), residual.clone()
    assert kernels.merge(high, low, residual, True).data_ptr() == high.data_ptr()
    assert torch.equal(low, copies[0]) and torch.equal(residual, copies[1])


def test_a_residual_in_another_layout_gives_the_same():
    high, low, residual = maps(4, 4, 3, strange=True)
    other = residual.to(memory_format=torch.channels_last)
    assert torch.equal(
        kernels.merge(high.clone(), low, residual, False), kernels.merge(high.clone(), low, other, False)
    )


def test_very_negative_numbers_survive_without_relu():
    high, low, _ = maps(2, 2, 1)
    assert (kernels.merge(high.fill_(-3e38), low.fill_(0), None, False) == torch.tensor(-3e38)).all()


@pytest.mark.parametrize("relu", [True, False])
def test_what_is_not_finite_passes_through_a_merge(relu):
    high, low = torch.zeros(1, 8, 2, 2), torch.zeros(1, 8, 1, 1)
    high[0, 0, 0, 0], high[0, 1, 0, 0] = math.nan, math.inf
    high = high.contiguous(memory_format=torch.channels_last)
    merged, means = kernels.merge_and_halve(high, low, None, relu)
    assert merged[0, 0, 0, 0].isnan() and means[0, 0].isnan()
    assert merged[0, 1, 0, 0].isinf() and means[0, 1].isinf()
