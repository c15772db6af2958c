"""The auto-encoder alone, without a classifier: in seconds it shows what the transform loss does and what it misses."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dynlib import train
from dynlib.data import Batches
from dynlib.papers.wae_network import Even, Wae
from dynlib.papers.wae_split import Decoder, Encoder
from dynlib.papers.wae_training import split_loss, watch_split

WINDOW_PX = 16  # side of what it learns from: in a short training steps count, not pixels


def window(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch cut to a square of `WINDOW_PX` at a drawn place, the same in all its images."""
    top, left = (int(torch.randint(side - WINDOW_PX + 1, (), generator=generator)) for side in images.shape[-2:])
    return images[..., top : top + WINDOW_PX, left : left + WINDOW_PX]


def learn(
    batches: Batches, valid: Batches, schedule: train.Schedule, *, lam: float = 1.0, bias_lr: float = 1.0, seed: int = 0
) -> tuple[Wae, list[dict]]:
    """Stage 1 alone, on windows of the images: an auto-encoder and its curve, see `watch_split`.

    Images keep the scale that the batches give them. Biases learn at `bias_lr` times the rate. The network has no
    towers: call it with `classify=False`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wae(Even(pad=False), Encoder(), nn.Identity(), nn.Identity(), decoder=Decoder())
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("weight")]
    curve = train.fit(
        model,
        replace(batches, augment=window),
        schedule,
        seed=seed,
        objective=lambda network, images, targets, done: split_loss(network, images, targets, done, lam=lam),
        valid=valid,
        watch=watch_split,
        groups=[(weights, 1.0), (biases, bias_lr)],
        hardware=train.Hardware(accelerator="cpu"),
    )
    return model, curve


@torch.no_grad()
def quieter(model: Wae, factor: float) -> Wae:
    """A copy whose I_H is `factor` times smaller and whose decoder takes it `factor` times larger: I' is the same."""
    model = copy.deepcopy(model)
    for parameter in model.split.high.parameters():
        parameter /= factor
    model.decoder.high.deconv.weight *= factor
    return model
