"""Masks and interpolations: probabilities, repeatability, limits, slow references, gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dynlib.papers.sampling.interpolate import Filler, interpolate, rbf_kernel, rbf_profile, repeated
from dynlib.papers.sampling.masks import (
    Sample,
    Sampler,
    Tally,
    bernoulli_mask,
    grid,
    gumbel_mask,
    logistic_noise,
    sparse_loss,
    temperature,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sampler(**settings):
    options = {"deterministic": False, "bias": 3.0, "interval": None, "density": None, "seed": 0}
    return Sampler(4, 1, 0, **(options | settings))


# ---------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("pi", [0.05, 0.3, 0.5, 0.9])
def test_a_position_is_sampled_with_its_probability_within_four_standard_errors(pi):
    n = 100_000
    error = 4 * math.sqrt(pi * (1 - pi) / n)
    assert abs(bernoulli_mask(torch.full((n,), pi), generator()).mean() - pi) < error
    logits = torch.full((n,), math.log(pi / (1 - pi)))
    soft = gumbel_mask(logits, 0.03, logistic_noise(logits, generator()))
    assert abs((soft > 0.5).float().mean() - pi) < error


def test_one_logistic_draw_is_the_two_class_gumbel_softmax():
    torch.manual_seed(0)
    pi, tau, uniform = torch.rand(1000).double(), 0.4, torch.rand(2, 1000).double()
    g1, g2 = -(-uniform.log()).log()
    first, second = ((pi.log() + g1) / tau).exp(), (((1 - pi).log() + g2) / tau).exp()
    torch.testing.assert_close(gumbel_mask(torch.logit(pi), tau, g1 - g2), first / (first + second))


def test_the_logistic_noise_has_the_spread_of_two_gumbels_and_is_finite_at_the_ends():
    noise = logistic_noise(torch.empty(200_000), generator())
    assert noise.isfinite().all() and noise.mean().abs() < 0.02
    assert noise.var().item() == pytest.approx(math.pi**2 / 3, rel=0.02)


def test_the_temperature_ends_where_the_released_factor_ends():
    assert temperature(0.0, 0.03) == 1.0 and temperature(1.0, 0.03) == pytest.approx(0.03)
    steps = 175_900
    assert temperature(1000 / steps, 0.99998**steps) == pytest.approx(0.99998**1000)


def test_the_grid_is_every_eleventh_row_and_column_from_the_first():
    mask = grid(23, 12, 11)
    assert mask.nonzero().tolist() == [[i, j] for i in (0, 11, 22) for j in (0, 11)]
    x = torch.zeros(1, 4, 23, 12)
    drawn = sampler(bias=-100.0, interval=11).eval()(x)
    assert torch.equal(drawn.mask[0, 0], mask) and (drawn.probability < 1e-6).all()


def test_masks_are_soft_in_training_and_hard_in_evaluation():
    x = torch.randn(2, 4, 8, 8, generator=generator())
    net = sampler(bias=0.0)
    assert net.train()(x).mask.min() > 0 and net(x).mask.max() < 1
    assert set(net.eval()(x).mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(net(x).mask, net(x).mask)


def test_deterministic_masks_compare_the_probability_with_one_half():
    x = torch.randn(2, 4, 8, 8, generator=generator())
    net = sampler(bias=0.0, deterministic=True).eval()
    torch.nn.init.normal_(net.score.weight, generator=generator())
    drawn = net(x)
    assert torch.equal(drawn.mask, (drawn.probability >= 0.5).float())
    torch.testing.assert_close(net.train()(x).mask, drawn.probability)  # tau 1, no noise


def test_half_precision_ends_at_the_scores():
    drawn = sampler().to(torch.bfloat16)(torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16))
    assert drawn.mask.dtype == drawn.probability.dtype == torch.float32


def test_the_sparse_loss_weighs_masks_by_their_share_and_blocks_alike():
    pi = [torch.full((1, 1, 2, 2), value) for value in (0.8, 0.4, 0.2, 0.6)]
    samples = {str(i): Sample(p, p) for i, p in enumerate(pi)}
    shares = {"0": 0.25, "1": 0.75, "2": 0.25, "3": 0.75}
    by_hand = 0.1 / 2 * ((0.25 * 0.8 + 0.75 * 0.4) + (0.25 * 0.2 + 0.75 * 0.6))
    assert sparse_loss(samples, shares, 0.1).item() == pytest.approx(by_hand)


def test_the_tally_finds_windows_without_a_sample():
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 0, 0] = 1
    tally = Tally(7)
    tally.add("a", Sample(mask, mask))
    assert tally.densities == {"a": pytest.approx(1 / 400)}
    assert tally.empty_windows == pytest.approx((400 - 16) / 399)


def test_the_tally_tells_undecided_masks_from_collapsed_ones():
    tally, mask = Tally(7), torch.ones(2, 1, 2, 2)
    tally.add("open", Sample(mask, torch.tensor([[0.04, 0.06, 0.5, 0.96], [0.94, 0.5, 0.3, 0.2]]).view(2, 1, 2, 2)))
    for name, value in (("shut", 0.001), ("full", 0.999)):
        tally.add(name, Sample(mask, torch.full((2, 1, 2, 2), value)))
    assert tally.undecided == {"open": pytest.approx(6 / 8), "shut": 0, "full": 0}


# ------------------------------------------------------------------------------------------------------- interpolations


def features(*shape):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


def half(*shape, p=0.5):
    return (torch.rand(*shape, generator=generator(1)) < p).double()


def filler(kind, **kw):
    return Filler(kind, **({"window": 5, "sigma": 1.0, "epsilon": 0.0} | kw))


@pytest.mark.parametrize("form", [rbf_kernel, rbf_profile])
def test_interpolation_is_the_sum_in_the_paper_by_the_kernel_and_by_its_factor(form):
    x, mask, sigma, epsilon = features(1, 2, 6, 7), torch.rand(1, 1, 6, 7).double(), torch.tensor(1.0), 0.01
    out = interpolate(x, mask, form(sigma, 3), epsilon)
    kernel = torch.tensor([[math.exp(-(i * i + j * j) / 2) / (2 * math.pi) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    for i in range(6):
        for j in range(7):
            top, bottom = torch.zeros(2).double(), epsilon
            for y in range(max(0, i - 1), min(6, i + 2)):
                for z in range(max(0, j - 1), min(7, j + 2)):
                    weight = kernel[y - i + 1, z - j + 1].double() * mask[0, 0, y, z]
                    top, bottom = top + weight * x[0, :, y, z], bottom + weight
            m = mask[0, 0, i, j]
            torch.testing.assert_close(out[0, :, i, j], m * x[0, :, i, j] + (1 - m) * top / bottom)


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average", "zeros", "reuse"])
def test_a_sampled_position_keeps_its_features(kind):
    x, mask = features(2, 3, 9, 8), half(2, 1, 9, 8)
    out = filler(kind)(x, mask, torch.zeros_like(x)).detach()
    assert torch.equal(out * mask, x * mask)


@pytest.mark.parametrize("kind", ["rbf", "average"])
def test_a_constant_map_stays_constant_wherever_a_window_has_a_sample(kind):
    x, mask = torch.full((1, 3, 16, 16), 2.5).double(), half(1, 1, 16, 16)
    torch.testing.assert_close(filler(kind)(x, mask).detach(), x)


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average"])
def test_a_position_without_a_sample_in_its_window_is_zero_and_the_others_are_not(kind):
    mask = torch.zeros(1, 1, 15, 15)
    mask[..., 7, 7] = 1
    out = filler(kind, window=7, sigma=1.0, epsilon=1e-5)(torch.ones(1, 2, 15, 15), mask)[0].detach()
    near = torch.zeros(15, 15, dtype=torch.bool)
    near[4:11, 4:11] = True
    assert (out[:, near] > 0).all() and not out[:, ~near].any()


def test_a_sample_that_the_kernel_rounds_away_leaves_a_zero_and_no_nan():
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 0, 0] = 1
    out = filler("rbf", window=7, sigma=9.0, epsilon=0.0)(torch.ones(1, 1, 7, 7), mask)[0, 0].detach()
    assert out[1, 1] == 1 and out[3, 3] == 0 and out.isfinite().all()


@pytest.mark.parametrize(
    ("sigma", "epsilon", "positions"), [(3.0, 1e-5, 1), (2.0, 1e-5, 2), (1.0, 1e-5, 3), (3.0, 0.0, 3)]
)
def test_a_lone_sample_keeps_half_its_value_as_far_as_the_kernel_reaches(sigma, epsilon, positions):
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 3, 3] = 1
    out = filler("rbf", window=7, sigma=sigma, epsilon=epsilon)(torch.ones(1, 1, 7, 7), mask)[0, 0, 3, 3:].detach()
    assert int((out[1:] >= 0.5).sum()) == positions


def test_average_pooling_is_the_rbf_of_vanishing_sigma():
    x, mask = features(1, 2, 9, 9), half(1, 1, 9, 9)
    torch.testing.assert_close(
        filler("rbf", sigma=1e-3)(x, mask).detach(), filler("average")(x, mask), rtol=1e-4, atol=1e-4
    )


def test_the_plain_convolution_starts_as_a_mean_of_the_neighbours_and_is_linear():
    fill, mask = filler("convolution", sigma=3.0), half(1, 1, 9, 9)
    assert fill.weight.sum().item() == pytest.approx(1) and fill.weight[2, 2] == 0
    x, y = features(1, 2, 9, 9), features(1, 2, 9, 9).flip(2)
    torch.testing.assert_close(fill(x + y, mask), fill(x, mask) + fill(y, mask))


def test_reuse_takes_the_channels_in_order_and_begins_again():
    x = torch.arange(3.0).view(1, 3, 1, 1)
    assert repeated(x, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("kind", ["rbf", "convolution", "average"])
def test_gradients_of_features_mask_and_kernel_are_right(kind):
    fill = filler(kind, epsilon=1e-5).double()
    x, mask = features(1, 2, 4, 4).requires_grad_(), torch.rand(1, 1, 4, 4).double().requires_grad_()
    parameters = tuple(fill.parameters())

    def run(x, mask, *parameters):
        return fill(x, mask)

    assert gradcheck(run, (x, mask, *parameters))
