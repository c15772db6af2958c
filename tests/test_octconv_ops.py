"""The octave operator and its layers: limits, a slow reference from the paper's equations, gradients, costs."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynlib import cost
from dynlib.backbones.cifar_resnet import PadShortcut
from dynlib.errors import InputError
from dynlib.papers.octconv.layers import OctIdentity
from dynlib.papers.octconv.ops import (
    Octave,
    OctBatchNorm2d,
    OctConv2d,
    Split,
    macs_ratio,
    memory_ratio,
    octave_add,
    octave_cat,
    octave_conv,
    split_channels,
)

SIDES = [0, 0.5, 1]  # alpha at the edges and between


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def octave(split, height=8, width=4, batch=2):
    """Random features: a band without channels is None."""
    high = randn(batch, split.high, height, width) if split.high else None
    low = randn(batch, split.low, height // 2, width // 2) if split.low else None
    return Octave(high, low)


def layer(c_in, c_out, a, b, kernel=3, **kw):
    options = {name: kw.pop(name) for name in ("downsampling", "high_to_low", "low_to_high") if name in kw}
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **kw)
    return OctConv2d(conv, split_channels(c_in, a), split_channels(c_out, b), name="conv", **options)


# ------------------------------------------------------------------------------------------- reference, Eq. 2 and 3


def at(x, i, j):
    """The channels at a place of a map (C, H, W); zero outside."""
    inside = 0 <= i < x.shape[1] and 0 <= j < x.shape[2]
    return x[:, i, j] if inside else np.zeros(x.shape[0])


def halved(x):
    """Average of the four neighbours 2p, 2p + (0, 1), 2p + (1, 0), 2p + (1, 1)."""
    y = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
    for i, j, u, v in np.ndindex(*y.shape[1:], 2, 2):
        y[:, i, j] += x[:, 2 * i + u, 2 * j + v] / 4
    return y


def slow_path(x, w, size, groups, floor=1):
    """y[p] = sum over i of w[i] x[floor(p / floor) + i], a group of channels at a time."""
    c_out, columns, k, _ = w.shape
    rows = c_out // groups
    y = np.zeros((c_out, *size))
    for i, j, u, v in np.ndindex(*size, k, k):
        seen = at(x, i // floor + u - k // 2, j // floor + v - k // 2)
        for g in range(groups):
            own = slice(g * rows, (g + 1) * rows)
            y[own, i, j] += w[own, :, u, v] @ seen[g * columns : (g + 1) * columns]
    return y


def slow_octave_conv(x_h, x_l, w, out, stride, groups):
    """Y^H and Y^L of one image; absent bands are None. Strided: X^H is halved first, X^L only on its way to Y^L."""
    c_h, c_l = (0 if x is None else len(x) for x in (x_h, x_l))
    height, width = x_h.shape[1:] if c_h else (2 * side for side in x_l.shape[1:])
    full, half = (height // stride, width // stride), (height // stride // 2, width // stride // 2)
    depthwise = 1 < groups == c_h + c_l == sum(out)
    w_h, w_l = w[: out.high], w[out.high :]
    near = 0 if x_h is None else halved(x_h) if stride == 2 else x_h
    y_h, y_l = np.zeros((out.high, *full)), np.zeros((out.low, *half))
    if depthwise:
        y_h += slow_path(near, w_h, full, out.high) if c_h else 0
        y_l += slow_path(halved(x_l) if stride == 2 else x_l, w_l, half, out.low) if c_l else 0
    else:
        columns = c_h // groups
        if c_h and out.high:
            y_h += slow_path(near, w_h[:, :columns], full, groups)
        if c_l and out.high:
            y_h += slow_path(x_l, w_h[:, columns:], full, groups, floor=1 if stride == 2 else 2)
        if c_l and out.low:
            y_l += slow_path(halved(x_l) if stride == 2 else x_l, w_l[:, columns:], half, groups)
        if c_h and out.low:
            y_l += slow_path(halved(near), w_l[:, :columns], half, groups)
    return y_h if out.high else None, y_l if out.low else None


SHARES = [(a, b, 1) for a, b in product(SIDES, SIDES)] + [
    (0, 0, 2),
    (0.5, 0.5, 2),
    (0.5, 1, 2),
    (0.5, 0.5, 8),
    (1, 1, 8),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("a", "b", "groups"), SHARES)
def test_the_operator_equals_a_slow_loop_over_the_paper_s_equations(a, b, groups, kernel, stride):
    inp, out = split_channels(8, a), split_channels(8, b)
    x, w = octave(inp), randn(8, 8 // groups, kernel, kernel)
    y = octave_conv(x, w, None, out, stride=stride, padding=(kernel // 2,) * 2, groups=groups)
    for image in range(2):
        bands = [None if band is None else band[image].numpy() for band in x]
        expected = slow_octave_conv(*bands, w.numpy(), out, stride, groups)
        for band, reference in zip(y, expected, strict=True):
            assert (band is None) == (reference is None)
            if band is not None:
                np.testing.assert_allclose(band[image].numpy(), reference, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ limits


def test_without_low_channels_a_strided_one_pools_first_or_strides_as_asked():
    x, w, bias = randn(2, 4, 8, 6), randn(6, 4, 3, 3), randn(6)
    pooled = octave_conv(Octave(x, None), w, bias, Split(6, 0), stride=2, padding=(1, 1))
    strided = octave_conv(Octave(x, None), w, bias, Split(6, 0), stride=2, padding=(1, 1), downsampling="strided")
    assert torch.equal(pooled.high, F.conv2d(F.avg_pool2d(x, 2), w, bias, padding=1))
    assert torch.equal(strided.high, F.conv2d(x, w, bias, 2, padding=1))


@pytest.mark.parametrize(("a", "b"), [*product(SIDES, SIDES)])
def test_the_bias_is_added_once_a_band(a, b):
    inp, out, w, bias = split_channels(4, a), split_channels(6, b), randn(6, 4, 1, 1), randn(6)
    with_bias, without = (octave_conv(octave(inp), w, offset, out) for offset in (bias, None))
    for y, base, offset in zip(with_bias, without, bias.split(out), strict=True):
        assert y is None or torch.allclose(y, base + offset[:, None, None], atol=1e-12)


@pytest.mark.parametrize(("downsampling", "shift"), [("average", 0.0), ("strided", 0.5)])
def test_down_and_up_again_shifts_a_ramp_by_nothing_with_pooling_and_half_a_pixel_with_strides(downsampling, shift):
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    one = torch.ones(1, 1, 1, 1)
    low = octave_conv(Octave(ramp, None), one, None, Split(0, 1), downsampling=downsampling)
    back = octave_conv(low, one, None, Split(1, 0), downsampling=downsampling)
    assert (ramp - back.high).mean() == shift


@pytest.mark.parametrize("channels", [1, 7, 64])
@pytest.mark.parametrize("alpha", [0, 0.125, 0.5, 0.3, 1])
def test_the_low_share_is_rounded_down_and_nothing_is_lost(channels, alpha):
    high, low = split_channels(channels, alpha)
    assert high + low == channels
    assert low == int(alpha * channels)


def test_a_path_switched_off_adds_nothing_and_stays_where_it_is_the_only_one_into_or_out_of_a_band():
    x, w, out = octave(Split(2, 2)), randn(4, 4, 3, 3), Split(2, 2)
    alone = octave_conv(x, w, None, out, padding=(1, 1), high_to_low=False, low_to_high=False)
    assert torch.equal(alone.high, F.conv2d(x.high, w[:2, :2], padding=1))
    assert torch.equal(alone.low, F.conv2d(x.low, w[2:, 2:], padding=1))
    for first in (Octave(x.high, None), Octave(None, x.low)):
        on, off = (
            octave_conv(first, w[:, :2], None, out, padding=(1, 1), high_to_low=k, low_to_high=k) for k in (True, False)
        )
        assert all(torch.equal(p, q) for p, q in zip(on, off, strict=True))
    for last in (Split(4, 0), Split(0, 4)):
        on, off = (octave_conv(x, w, None, last, padding=(1, 1), high_to_low=k, low_to_high=k) for k in (True, False))
        assert all(p is q is None or torch.equal(p, q) for p, q in zip(on, off, strict=True))


# --------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("downsampling", ["average", "strided"])
def test_gradients_are_right_in_both_bands_the_kernel_and_the_bias(stride, downsampling):
    def function(high, low, w, bias):
        return octave_conv(
            Octave(high, low), w, bias, Split(2, 1), stride=stride, padding=(1, 1), downsampling=downsampling
        )

    values = (randn(1, 1, 4, 4), randn(1, 2, 2, 2), randn(3, 3, 3, 3), randn(3))
    assert torch.autograd.gradcheck(function, [v.requires_grad_() for v in values])


# -------------------------------------------------------------------------------------------------------------- cost


def counted(conv, x):
    return cost.count(conv, x).macs if isinstance(x, torch.Tensor) else cost.count(Joined(conv), *x).macs


class Joined(nn.Module):
    """Takes the two bands apart, as the counter hands inputs over."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, high, low):
        return self.conv(Octave(high, low))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("alpha", [Fraction(1, 8), Fraction(1, 4), Fraction(1, 2)])
@pytest.mark.parametrize(("first", "last"), [*product([False, True], [False, True])])
def test_a_layer_saves_what_the_cost_formula_says(first, last, alpha, stride):
    a, b = 0 if first else alpha, 0 if last else alpha
    conv, plain = layer(16, 32, a, b, stride=stride), nn.Conv2d(16, 32, 3, stride, 1)
    ratio = 1 - 0.75 * b if stride == 2 else macs_ratio(a, b)
    x = octave(conv.inp, 16, 16, batch=1)
    vanilla = cost.count(plain, torch.ones(1, 16, 16, 16)).macs
    assert counted(conv.double(), x.high if x.low is None else x) == ratio * vanilla


@pytest.mark.parametrize("alpha", [0, 0.125, 0.25, 0.5, 0.75, 0.875, 1])
def test_an_octave_holds_as_many_numbers_as_the_memory_formula_says(alpha):
    bands = octave(split_channels(16, alpha), 8, 4, batch=1)
    assert sum(band.numel() for band in bands if band is not None) == memory_ratio(alpha) * 16 * 8 * 4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("alpha", [Fraction(1, 4), Fraction(1, 2)])
def test_a_depthwise_layer_saves_three_quarters_of_the_low_share(alpha, stride):
    conv, plain = layer(16, 16, alpha, alpha, groups=16, stride=stride), nn.Conv2d(16, 16, 3, stride, 1, groups=16)
    vanilla = cost.count(plain, torch.ones(1, 16, 16, 16)).macs
    assert counted(conv.double(), octave(conv.inp, 16, 16, batch=1)) == (1 - Fraction(3, 4) * alpha) * vanilla


# ------------------------------------------------------------------------------------------------------ other layers


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_batch_norm_is_one_ordinary_batch_norm_a_band(momentum, options):
    whole, split = nn.BatchNorm2d(6, momentum=momentum, **options), Split(4, 2)
    bands = [nn.BatchNorm2d(channels, momentum=momentum, **options) for channels in split]
    if whole.affine:
        nn.init.normal_(whole.weight)
        nn.init.normal_(whole.bias)
        for name in ("weight", "bias"):
            for norm, value in zip(bands, getattr(whole, name).detach().split(split), strict=True):
                getattr(norm, name).data.copy_(value)
    ours = OctBatchNorm2d(whole, split)
    for step in range(4):
        if step == 2:
            for norm in (ours, *bands):
                norm.eval()
        x = Octave(torch.randn(3, 4, 6, 4), torch.randn(3, 2, 3, 2) + step)
        for y, norm, band in zip(ours(x), bands, x, strict=True):
            assert torch.allclose(y, norm(band), atol=1e-6)
    if whole.track_running_stats:
        for name in ("running_mean", "running_var"):
            assert torch.allclose(getattr(ours, name), torch.cat([getattr(norm, name) for norm in bands]))
        assert ours.num_batches_tracked == bands[0].num_batches_tracked == 2


def test_a_shortcut_without_parameters_keeps_every_channel_at_its_index():
    x = octave(Split(3, 1))
    y = OctIdentity(Split(4, 4), 2, "average")(x)
    assert torch.equal(y.high[:, :3], F.avg_pool2d(x.high, 2))
    assert torch.equal(y.high[:, 3:], x.low)  # a low channel stands at the strided resolution already
    assert y.low.shape == (2, 4, 2, 1) and not y.low.any()
    door = OctIdentity(Split(2, 2), 1, "average")(x.high.repeat(1, 2, 1, 1)[:, :4])
    assert torch.equal(door.high, x.high[:, :2])
    assert torch.equal(door.low, F.avg_pool2d(torch.stack([x.high[:, 2], x.high[:, 0]], 1), 2))


def test_a_shortcut_without_low_channels_is_the_plain_one():
    x = randn(2, 3, 8, 6)
    assert torch.equal(OctIdentity(Split(5, 0), 2, "strided")(x), PadShortcut(3, 5, 2)(x))


def test_addition_and_concatenation_act_a_band_at_a_time():
    x, y = octave(Split(2, 2)), octave(Split(2, 2), batch=2)
    total, joined = octave_add(x, y), octave_cat([x, y.high, Octave(None, y.low)])
    assert torch.equal(total.high, x.high + y.high) and torch.equal(total.low, x.low + y.low)
    assert torch.equal(joined.high, torch.cat([x.high, y.high], 1))
    assert torch.equal(joined.low, torch.cat([x.low, y.low], 1))


@pytest.mark.parametrize(
    ("conv", "a", "b", "says"),
    [
        (nn.Conv2d(8, 8, 3), 0.5, 0.5, r"here: kernel \(3, 3\), padding \(0, 0\)"),
        (nn.Conv2d(8, 8, 2, padding=1), 0.5, 0.5, "keeps the size"),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), 0.5, 0.5, "of reflect"),
        (nn.Conv2d(8, 8, 3, 3, 1), 0.5, 0.5, "stride 1, 2 or 4"),
        (nn.Conv2d(8, 8, 3, (1, 2), 1), 0.5, 0.5, r"stride \(1, 2\)"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=4), 0.25, 0.25, "here: 4 groups do not divide 6 channels of a band"),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), 0.5, 0.5, "8 groups do not divide 4 channels"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 0.5, 0.25, r"equal splits, got \(4, 4\) and \(6, 2\)"),
    ],
)
def test_a_layer_without_octave_form_is_refused_in_one_line_that_names_it(conv, a, b, says):
    with pytest.raises(InputError, match=says) as error:
        OctConv2d(conv, split_channels(8, a), split_channels(conv.out_channels, b), name="here")
    assert str(error.value).startswith("here: ") and "\n" not in str(error.value)


def test_padding_that_is_called_same_is_understood():
    conv, x = nn.Conv2d(4, 4, 3, padding="same", dilation=2), Octave(torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4))
    y = OctConv2d(conv, Split(2, 2), Split(2, 2), name="conv")(x)
    assert (y.high.shape, y.low.shape) == (x.high.shape, x.low.shape)
