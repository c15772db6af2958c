"""Auto-encoders that learned without a classifier behind them, and the pictures that chapters 1 and 1b show of them."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import checkpoints
from dynlib.errors import InputError
from dynlib.papers.wae.network import Even, Wae
from dynlib.papers.wae.split import Decoder, Encoder
from dynlib.paths import WEIGHTS

KEPT = WEIGHTS / "wae"  # one a lambda, trained on photographs to the end of its schedule: 18,000 numbers each


def fresh() -> Wae:
    """An auto-encoder without towers, untrained: call it with `classify=False`."""
    return Wae(Even(pad=False), Encoder(), nn.Identity(), nn.Identity(), decoder=Decoder())


def keep(model: Wae, told: dict, folder: Path = KEPT) -> Path:
    """Write an auto-encoder; its header has what is `told` of how it was made, `lambda` among it."""
    return checkpoints.write(_place(told["lambda"], folder), model.state_dict(), told=json.dumps(told))


def kept(lam: float = 1.0, folder: Path = KEPT) -> tuple[Wae, dict]:
    """The auto-encoder that `keep` wrote, in evaluation mode, and what is told of it.

    Raises InputError where there is none, or a damaged one.
    """
    model, path = fresh(), _place(lam, folder)
    tensors, about = checkpoints.read(path, "an auto-encoder of wae_alone.keep")
    try:
        told = json.loads(about["told"])
        model.load_state_dict(tensors)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} is not an auto-encoder of wae_alone.keep ({error})") from error
    return model.eval(), told


def _place(lam: float, folder: Path) -> Path:
    return folder / f"split-{lam:g}.safetensors"


def photograph(side_px: int = 256) -> Tensor:
    """A photograph (1, 3, S, S) on the scale 0 to 1 that is on every machine: Grace Hopper, US Navy, public domain.

    It ships with Matplotlib.
    """
    from matplotlib import cbook, image  # where a picture is shown, it is there

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = torch.from_numpy(np.array(image.imread(file, format="jpg")))  # (600, 512, 3), uint8
    square = pixels[20:532].permute(2, 0, 1)[None].float() / 255
    return F.interpolate(square, (side_px, side_px), mode="bilinear", antialias=True)


def stretched(images: Tensor) -> Tensor:
    """Every channel of every image (N, C, H, W) from 0 to 1; a constant one is black."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / torch.where(high > low, high - low, 1)
