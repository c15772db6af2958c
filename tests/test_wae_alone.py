"""The auto-encoders that chapters 1 and 1b look at: kept, and found again."""

import pytest
import torch

from dynlib.book.demos.wae_alone import KEPT, fresh, keep, kept, photograph, stretched
from dynlib.errors import InputError
from dynlib.papers.wae.split import psnr


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return fresh().eval()


def test_every_channel_is_stretched_to_the_whole_scale():
    image = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    shown = stretched(image / 2 + 0.1)
    assert shown.amin((-2, -1)).eq(0).all() and shown.amax((-2, -1)).eq(1).all()


def test_a_constant_channel_is_black():
    assert not stretched(torch.full((1, 3, 4, 4), 0.7)).any()


def test_an_auto_encoder_is_kept_with_what_made_it(model, tmp_path):
    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    path = keep(model, {"lambda": 0.1, "seed": 3}, tmp_path / "wae")
    found, told = kept(0.1, tmp_path / "wae")
    expected = model(image, restore=True, classify=False).restored
    assert told == {"lambda": 0.1, "seed": 3} and path.name == "split-0.1.safetensors"
    torch.testing.assert_close(found(image, restore=True, classify=False).restored, expected)
    with pytest.raises(InputError, match=r"split-1\.safetensors is not an auto-encoder"):
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
