"""The auto-encoder without a classifier: it learns, it follows its scale, and its energy can be hidden."""

from dataclasses import replace

import pytest
import torch

from dynlib.data import Batches, load
from dynlib.papers.wae_alone import WINDOW_PX, learn, quieter, window
from dynlib.papers.wae_training import watch_split
from dynlib.train import Schedule

ADAM = Schedule(4, lr=0.003, optimizer="adam", weight_decay=0.0, warmup_epochs=1)


def batches(scale=1.0):
    samples = load("scenes", "train", n=64, size_px=32)
    return Batches(samples, 8, mean=(0.0,) * 3, std=(1 / scale,) * 3)


@pytest.fixture(scope="module")
def learned():
    return learn(batches(), batches(), ADAM, lam=0.1)


def test_a_window_is_one_square_of_all_images_and_moves(learned):
    image = torch.arange(2 * 3 * 20 * 24).view(2, 3, 20, 24)
    generator = torch.Generator().manual_seed(0)
    cuts = [window(image, generator) for _ in range(4)]
    assert {cut.shape for cut in cuts} == {(2, 3, WINDOW_PX, WINDOW_PX)}
    assert len({cut[0, 0, 0, 0].item() for cut in cuts}) > 1
    assert torch.equal(cuts[0][1] - cuts[0][0], torch.full_like(cuts[0][0], 3 * 20 * 24))


def test_it_learns_and_the_same_seed_gives_the_same(learned):
    model, curve = learned
    assert curve[-1]["psnr"] > curve[0]["psnr"] + 2
    again, _ = learn(batches(), batches(), ADAM, lam=0.1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_pixels_255_times_larger_learn_the_same_at_a_rate_255_squared_times_smaller_if_biases_learn_less():
    sgd = Schedule(1, lr=1e-6, weight_decay=0.0, warmup_epochs=0.1)
    loud, _ = learn(batches(255), batches(255), sgd)
    unit, _ = learn(batches(), batches(), replace(sgd, lr=1e-6 * 255**2), bias_lr=1 / 255**2)
    for name, weight in unit.named_parameters():
        torch.testing.assert_close(
            loud.get_parameter(name), weight * 255 ** name.endswith("bias"), rtol=1e-3, atol=1e-5
        )


def test_a_quieter_i_h_costs_nothing_and_has_less_energy(learned):
    model, _ = learned
    before, after = (watch_split(network, batches()) for network in (model, quieter(model, 100)))
    assert after["energy_high"] == pytest.approx(before["energy_high"] / 100**2, rel=1e-4)
    same = ("psnr", "psnr_low_alone", "energy_low", "detail_high")
    assert {name: after[name] for name in same} == pytest.approx({name: before[name] for name in same}, rel=1e-4)
