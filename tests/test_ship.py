"""The page that tells how to ship a network: its blocks run, top to bottom, on a small network and small images."""

import re

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

from dynlib import runtime
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.paths import BOOK

PAGE = (BOOK / "ship.md").read_text(encoding="utf-8")
SMALLER = {'resnet50(weights="DEFAULT")': "resnet18(num_classes=3)", "resnet50": "resnet18", "epochs=10": "epochs=1"}
SMALLER |= {"(1.0, 0.75, 0.5)": "(1.0, 0.5), predictor_width=0.125", "(0, 2, 4, 8)": "(0, 4, 8)"}
FOLDERS = ["plain", "int8", "octave", "wae", "drnet", "s2dnas", "sampling"]


def blocks() -> list[str]:
    found = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for old, new in SMALLER.items():
        found = [block.replace(old, new) for block in found]
    return found


@pytest.fixture(scope="module")
def scope(tmp_path_factory):
    """What the page's names stand for once all of its blocks have run."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(8, 3, 32, 32, generator=generator), torch.arange(8) % 3
    loader = DataLoader(TensorDataset(images, labels), batch_size=4, shuffle=True)
    names = {"loader": loader, "held_out": loader, "valid": loader, "example": images[:2]}
    names |= {"images": images, "smaller": images[:2, :, ::2, ::2]}
    folder = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(torchvision.models, "resnet18", lambda num_classes: CifarResNet(8, num_classes, width=8))
        for block in blocks():
            exec(block, names)  # noqa: S102  the page's own example
    return names | {"folder": folder}


def test_the_first_block_is_about_ten_lines():
    assert len([line for line in blocks()[0].splitlines() if line]) <= 10


def test_the_folder_answers_as_the_network_that_was_trained(scope):
    with torch.no_grad():
        expected = scope["octave"](scope["example"])
    np.testing.assert_allclose(scope["logits"], expected.numpy(), rtol=1e-3, atol=1e-3)


def test_thresholds_come_from_held_out_images_and_stay_in_force(scope):
    chosen = scope["found"]["rules"]["budget"][0]["thresholds"]
    assert scope["staged"].exit_rule.thresholds.tolist() == pytest.approx(chosen)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_answers(scope, name):
    answer = runtime.load(scope["folder"] / name)(np.asarray(scope["example"]))
    logits = getattr(answer, "logits", answer)
    assert logits.shape == (2, 3) and np.isfinite(logits).all()
