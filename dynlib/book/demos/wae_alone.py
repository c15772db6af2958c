"""The auto-encoder alone, no classifier behind it: in seconds it shows what its loss does and what the loss misses."""

import copy
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from dynlib import train
from dynlib.data import Batches
from dynlib.errors import InputError
from dynlib.papers.wae.network import EPSILON, Even, Wae
from dynlib.papers.wae.split import Decoder, Encoder, psnr, transform_loss
from dynlib.papers.wae.training import split_loss, watch_split
from dynlib.paths import WEIGHTS, write_atomically

Curve = list[dict[str, float]]

KEPT = WEIGHTS / "wae"  # one a lambda, trained on photographs to the end of its schedule: 18,000 numbers each


def learn(batches: Batches, valid: Batches, *, lam: float = 1.0, steps: int = 512, seed: int = 0) -> tuple[Wae, Curve]:
    """Stage 1 alone, by Adam on windows of the images: an auto-encoder and its curve, see `watch_split`.

    A long warm-up, since at once at full rate some of its few ReLUs die for good. The network has no towers: call it
    with `classify=False`.
    """
    epochs = max(1, round(steps / len(batches)))
    schedule = train.Schedule(epochs, lr=0.003, optimizer="adam", weight_decay=0.0, warmup_epochs=0.3 * epochs)
    return _trained(batches, valid, schedule, lam, bias_lr=1.0, seed=seed)


def learn_by_sgd(
    batches: Batches, valid: Batches, *, top: float, lr: float, bias_lr: float = 1.0, epochs: int = 2, seed: int = 0
) -> float:
    """The PSNR of I' after a short stage 1 by SGD, on pixels from 0 to `top`; biases learn at `bias_lr` times `lr`."""
    loud, heard = (replace(part, std=(1 / top,) * 3) for part in (batches, valid))
    schedule = train.Schedule(epochs, lr, weight_decay=0.0, warmup_epochs=epochs / 32)
    _, curve = _trained(loud, heard, schedule, 1.0, bias_lr, seed)
    return curve[-1]["psnr"] + 20 * math.log10(top)  # watched as if pixels went from 0 to 1


def _trained(
    batches: Batches, valid: Batches, schedule: train.Schedule, lam: float, bias_lr: float, seed: int
) -> tuple[Wae, Curve]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _fresh()
    parameters = dict(model.named_parameters())
    biases = [parameters.pop(name) for name in list(parameters) if name.endswith("bias")]
    curve = train.fit(
        model,
        replace(batches, augment=None),
        schedule,
        seed=seed,
        objective=partial(split_loss, lam=lam),
        valid=valid,
        watch=watch_split,
        groups=[(list(parameters.values()), 1.0), (biases, bias_lr)],
        hardware=train.Hardware(accelerator="cpu"),
    )
    return model.eval(), curve


def _fresh() -> Wae:
    return Wae(Even(pad=False), Encoder(), nn.Identity(), nn.Identity(), decoder=Decoder())


# ------------------------------------------------------------------------------------------------------------ one kept


def keep(model: Wae, told: dict, folder: Path = KEPT) -> Path:
    """Write an auto-encoder from `learn`; its header has what is `told` of how it was made, `lambda` among it."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return write_atomically(_place(told["lambda"], folder), safetensors.torch.save(tensors, {"told": json.dumps(told)}))


def kept(lam: float = 1.0, folder: Path = KEPT) -> tuple[Wae, dict]:
    """The auto-encoder that `keep` wrote, in evaluation mode, and what is told of it.

    Raises InputError where there is none.
    """
    model, path = _fresh(), _place(lam, folder)
    try:
        with safetensors.safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["told"])
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path} is no auto-encoder of wae_alone.keep ({error})") from error
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


# ------------------------------------------------------------------------------------------------------------ pictures


@torch.no_grad()
def portraits(model: Wae, images: Tensor) -> dict[str, np.ndarray]:
    """I, I_L, I_H and I' of a few images (N, 3, H, W), each one picture (., ., 3) with the images below each other.

    Each channel of I_L and I_H is stretched from its least to its largest value: their colours are arbitrary.
    """
    output = model(images, restore=True, classify=False)
    full = {"$I$": images, "$I'$": output.restored.clamp(0, 1)}
    half = {"$I_L$": stretched(output.image_low), "$I_H$": stretched(output.image_high)}
    order = ("$I$", "$I_L$", "$I_H$", "$I'$")
    return {name: _below(full[name], 4) if name in full else _below(half[name], 2) for name in order}


def stretched(images: Tensor) -> Tensor:
    """Every channel of every image (N, C, H, W) from 0 to 1; a constant one is black."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / torch.where(high > low, high - low, 1)


def _below(images: Tensor, gap_px: int) -> np.ndarray:
    return make_grid(images, nrow=1, padding=gap_px, pad_value=1.0).permute(1, 2, 0).numpy()


def both(model: Wae, image: Tensor) -> np.ndarray:
    """I_L above I_H of one image (3, H, W), stretched, as one picture; every pixel is drawn 2 x 2."""
    with torch.no_grad():
        output = model(image[None], restore=True, classify=False)
    parts = stretched(torch.cat([output.image_low, output.image_high]))
    return _below(parts.repeat_interleave(2, -1).repeat_interleave(2, -2), 4)


@torch.no_grad()
def quieter(model: Wae, factor: float) -> Wae:
    """A copy whose I_H is `factor` times smaller and whose decoder takes it `factor` times larger: I' is the same."""
    model = copy.deepcopy(model)
    for parameter in model.split.high.parameters():
        parameter /= factor
    model.decoder.high.deconv.weight *= factor
    return model


def hiding(model: Wae, images: Tensor, factor: float) -> dict[str, float]:
    """What `quieter` changes on images (N, 3, H, W): `psnr` of I', `energy_high`, and the price.

    `behind_norm`: the least variance of a channel of I_H behind the twin's batch norm, 1 but for its epsilon;
    `behind_unscaled`: the same with the epsilon of pixels from 0 to 255. `slope`: the norm of the gradient of the
    reconstruction error at the weights of the convolution that makes I_H.
    """
    network = quieter(model, factor)
    output = network(images, restore=True, classify=False)
    error = transform_loss(images, output.restored, output.image_high, lam=0.0)
    error.backward()
    least = output.image_high.detach().transpose(0, 1).flatten(1).var(1, correction=0).min().item()
    return {
        "psnr": psnr(error.item()),
        "energy_high": output.image_high.square().mean().item(),
        "behind_norm": least / (least + EPSILON),
        "behind_unscaled": least / (least + 255**2 * EPSILON),
        "slope": network.split.high.weight.grad.norm().item(),
    }
