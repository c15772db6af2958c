"""A task whose right resolutions are known, to see that dynamic resolution learns to choose at all.

Stripes run across or down, and that is the class. Half of the images have coarse stripes, which show at any size; the
other half stripes of one pixel, which half the side averages to an even grey. Nobody tells the predictor which is
which: it has the losses of the paper alone, and both phases of `drnet`.
"""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from dynlib import train
from dynlib.backbones.cifar_resnet import CifarResNet
from dynlib.data import Batches
from dynlib.data.samples import Samples
from dynlib.data.scenes import one_thread
from dynlib.papers import drnet
from dynlib.papers.drnet.policies import Evidence, chosen, collect, smallest_sufficient

SIDE, COARSE, CONTRAST, NOISE = 32, 8, 50, 20  # px of an image and of a coarse stripe; levels of 255
CONFIG = drnet.Config(candidates=(1.0, 0.5), predictor_side=0.5, predictor_width=0.125)
FIRST, SECOND = train.Schedule(2, lr=0.1), train.Schedule(6, lr=0.1)


def stripes(count: int, seed: int) -> tuple[Samples, Tensor]:
    """`count` noisy images of stripes with their directions, and which (N,) bool are fine; all four kinds in turn."""
    generator = torch.Generator().manual_seed(seed)
    down, fine = torch.arange(count) % 2, torch.arange(count) // 2 % 2 == 1
    start = torch.randint(2 * COARSE, (count, 1), generator=generator)
    bright = (torch.arange(SIDE) + start) // torch.where(fine, 1, COARSE)[:, None] % 2  # (N, SIDE)
    bright = torch.where(down[:, None, None] == 1, bright[:, None, :], bright[:, :, None])[:, None]
    levels = 128 + CONTRAST * (2 * bright - 1) + NOISE * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    images = levels.clamp(0, 255).to(torch.uint8)
    checksum = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    return Samples("stripes", f"seed {seed}", images, down, ("across", "down"), checksum), fine


def learn(batches: Batches, seed: int) -> nn.Module:
    """A small network with two candidates, trained on stripes in both phases of the paper: seconds on a CPU."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = drnet.convert(CifarResNet(8, width=4), CONFIG)
    for phase, schedule in zip(drnet.phases(CONFIG), (FIRST, SECOND), strict=True):
        how = {"objective": phase.objective, "groups": phase.groups(network), "hardware": train.Hardware("cpu")}
        with one_thread():
            train.fit(network, batches, schedule, seed=seed, **how)
    return network


def trial(seed: int) -> tuple[Evidence, Samples, Tensor]:
    """What a network that `learn` has trained says of held-out stripes, these, and which (N,) bool are fine."""
    batches, (held_out, fine) = Batches(stripes(384, seed=1)[0], 32), stripes(128, seed=2)
    return collect(learn(batches, seed), replace(batches, samples=held_out)), held_out, fine


def groups(seen: Evidence) -> dict[str, Tensor]:
    """Which images (N,) bool a size is enough for, and which are sent to it, the smaller size first."""
    large, small = (f"{height} px" for height, _ in seen.sizes)
    sent, enough = chosen(seen) == 1, smallest_sufficient(seen) == 1
    found = {f"{small} are enough": enough, f"{large} are needed": ~enough}
    return found | {f"sent to {small}": sent, f"sent to {large}": ~sent}
