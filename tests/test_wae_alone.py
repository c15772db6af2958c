"""The auto-encoder without a classifier: it learns, it follows its scale, and its energy can be hidden."""

from functools import cache

import pytest
import torch

from dynlib.book.demos.wae_alone import (
    KEPT,
    both,
    hiding,
    keep,
    kept,
    learn,
    learn_by_sgd,
    photograph,
    portraits,
    quieter,
    stretched,
)
from dynlib.data import Batches, load
from dynlib.errors import InputError
from dynlib.papers.wae.split import psnr
from dynlib.papers.wae.training import WINDOW_PX, watch_split, window


@cache
def batches():
    return Batches(load("scenes", "train", n=64, size_px=32), 8, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def learned():
    return learn(batches(), batches(), lam=0.1, steps=48)


def test_a_window_is_one_square_of_all_images_and_moves():
    image = torch.arange(2 * 3 * 20 * 24).view(2, 3, 20, 24)
    torch.manual_seed(0)
    cuts = [window(image) for _ in range(4)]
    assert {cut.shape for cut in cuts} == {(2, 3, WINDOW_PX, WINDOW_PX)}
    assert len({cut[0, 0, 0, 0].item() for cut in cuts}) > 1
    assert torch.equal(cuts[0][1] - cuts[0][0], torch.full_like(cuts[0][0], 3 * 20 * 24))
    assert torch.equal(window(image[..., :8, :12]), image[..., :8, :12])


def test_it_learns_and_the_same_seed_gives_the_same(learned):
    model, curve = learned
    assert curve[-1]["psnr"] > curve[0]["psnr"] + 2
    again, _ = learn(batches(), batches(), lam=0.1, steps=48)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_learning_rate_follows_the_square_of_the_pixels_and_biases_do_not():
    rates = {"published": (255, 1, 1), "moved": (1, 1, 1), "scaled": (1, 255**2, 1), "held": (1, 255**2, 1 / 255**2)}
    reached = {
        name: learn_by_sgd(batches(), batches(), top=top, lr=1e-6 * lr, bias_lr=bias_lr, epochs=3)
        for name, (top, lr, bias_lr) in rates.items()
    }
    assert reached["held"] == pytest.approx(reached["published"], abs=0.01)
    assert reached["moved"] < reached["published"] - 1
    assert abs(reached["scaled"] - reached["published"]) > 0.1


def test_portraits_stack_the_images_and_stretch_the_small_ones(learned):
    image = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    shown = portraits(learned[0], image)
    assert list(shown) == ["$I$", "$I_L$", "$I_H$", "$I'$"]
    assert shown["$I$"].shape == (2 * 36 + 4, 48, 3) and shown["$I_L$"].shape == (2 * 18 + 2, 24, 3)
    assert (shown["$I$"][4:36, 4:44] == image[0].permute(1, 2, 0).numpy()).all()
    for small in (shown["$I_L$"][2:18, 2:22], shown["$I_H$"][2:18, 2:22]):
        assert small.min((0, 1)).tolist() == [0] * 3 and small.max((0, 1)).tolist() == [1] * 3
    assert both(learned[0], image[0]).shape == (2 * 36 + 4, 48, 3)


def test_a_constant_channel_is_black():
    assert not stretched(torch.full((1, 3, 4, 4), 0.7)).any()


def test_a_quieter_i_h_costs_nothing_and_has_less_energy(learned):
    model, _ = learned
    before, after = (watch_split(network, batches()) for network in (model, quieter(model, 100)))
    assert after["energy_high"] == pytest.approx(before["energy_high"] / 100**2, rel=1e-4)
    same = ("psnr", "psnr_low_alone", "energy_low", "detail_high")
    assert {name: after[name] for name in same} == pytest.approx({name: before[name] for name in same}, rel=1e-4)


def test_hiding_the_energy_makes_the_error_as_much_steeper(learned):
    image = next(batches().epoch(None))[0]
    open_, hidden = (hiding(learned[0], image, factor) for factor in (1, 100))
    assert hidden["psnr"] == pytest.approx(open_["psnr"], abs=1e-3)
    assert hidden["energy_high"] == pytest.approx(open_["energy_high"] / 1e4, rel=1e-3)
    assert hidden["slope"] == pytest.approx(open_["slope"] * 100, rel=1e-2)
    assert hidden["behind_norm"] < open_["behind_norm"] < 1
    assert hidden["behind_unscaled"] < hidden["behind_norm"]  # what torch's own epsilon would leave


def test_an_auto_encoder_is_kept_with_what_made_it(learned, tmp_path):
    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    path = keep(learned[0], {"lambda": 0.1, "seed": 3}, tmp_path / "wae")
    found, told = kept(0.1, tmp_path / "wae")
    expected = learned[0](image, restore=True, classify=False).restored
    assert told == {"lambda": 0.1, "seed": 3} and path.name == "split-0.1.safetensors"
    torch.testing.assert_close(found(image, restore=True, classify=False).restored, expected)
    with pytest.raises(InputError, match=r"split-1\.safetensors is no auto-encoder"):
        kept(1.0, tmp_path / "wae")


@pytest.mark.parametrize("path", sorted(KEPT.glob("split-*.safetensors")), ids=lambda path: path.stem)
def test_those_that_are_kept_restore_a_photograph_that_they_never_saw(path):
    lam = float(path.stem.removeprefix("split-"))
    model, told = kept(lam)
    image = photograph(128)
    restored = model(image, restore=True, classify=False).restored
    assert image.shape == (1, 3, 128, 128) and 0 <= image.min() < image.max() <= 1
    assert psnr((restored - image).square().mean().item()) > 30
    assert (told["lambda"], told["dataset"]) == (lam, "imagenette224")
