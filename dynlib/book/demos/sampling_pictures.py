"""Where a sampled network looks: a small one that learns to tell objects from what is behind them, in seconds.

Its masks are finer than a classifier's: a dilated ResNet whose stem keeps half the side of the image.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import train
from dynlib.backbones import hosts
from dynlib.data import Batches, Samples, augment
from dynlib.data.scenes import BACKGROUND, one_thread
from dynlib.papers import sampling
from dynlib.papers.sampling import training as sampling_training
from dynlib.papers.sampling.interpolate import interpolate, rbf_kernel
from dynlib.papers.sampling.masks import Sample, Tally, bernoulli_mask, observed

CONFIG = sampling.Config(gamma=0.3, bias=1.0, grid=None)
SCHEDULE = train.Schedule(4, lr=0.05, warmup_epochs=0.25)
DOT = (213, 94, 0)  # the book's second colour
SHOWN = "backbone.layer1.1.samplers.1"  # the finest maps that have seen some context


def learn(scenes: Samples, seed: int) -> nn.Module:
    """A sampled ResNet-18 of 8 channels, trained on generated scenes with masks; a moment on a CPU."""
    two = replace(scenes, masks=(scenes.masks == BACKGROUND).to(scenes.masks.dtype), classes=("object", "background"))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = hosts.segmenter("resnet18", 2, 8)
    network.backbone.maxpool = nn.Identity()
    network = sampling.convert(network, CONFIG)
    batches = Batches(two, 8, augment=augment.flip_and_shift)
    how = {"objective": sampling_training.objective(CONFIG.gamma, CONFIG.tau), "hardware": train.Hardware("cpu")}
    with one_thread():
        train.fit(network, batches, SCHEDULE, seed=seed, **how)
    return network.eval()


@torch.no_grad()
def look(network: nn.Module, scenes: Samples) -> dict[str, Sample]:
    """What every sampler of the network makes of the scenes, by its name."""
    with observed(network) as samples:
        for images, _ in Batches(scenes, len(scenes)).epoch(None):
            network(images)
    return samples


def cut(probability: Tensor, mask: Tensor) -> Tensor:
    """As many positions as `mask` has, those of the highest probability: (N, 1, H, W) of zeros and ones."""
    ranked = probability.flatten(1).argsort(dim=1, descending=True, stable=True)
    order = ranked.argsort(dim=1)  # the rank of each position
    return (order < mask.flatten(1).sum(1, keepdim=True)).to(mask.dtype).view_as(mask)


def portraits(scenes: Samples, sample: Sample) -> dict[str, Tensor]:
    """Figure 1 of scenes (N, 3, H, W): by title N pictures (4 H, 4 W, 3), uint8.

    The scenes, the probability, and as dots what is computed by lot and by a threshold that lets as many pass.
    """
    masks = {"by lot: stochastic": sample.mask, "by threshold: deterministic": cut(sample.probability, sample.mask)}
    shown = {"scenes": scenes.images, "probability": (255 * sample.probability).byte().expand(-1, 3, -1, -1)}
    side = 4 * scenes.images.shape[-1]
    found = {title: _zoomed(images, side // images.shape[-1]) for title, images in shown.items()}
    pale = 90 + 0.65 * _zoomed(scenes.images, 4).float().mean(-1, keepdim=True)
    for title, mask in masks.items():
        cell = side // mask.shape[-1]
        dot = torch.zeros(cell, cell)
        dot[cell // 4 : -(cell // 4), cell // 4 : -(cell // 4)] = 1
        dots = torch.kron(mask[:, 0], dot)[..., None]
        found[title] = (pale * (1 - dots) + torch.tensor(DOT) * dots).byte()
    return found


def _zoomed(images: Tensor, times: int) -> Tensor:
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3).permute(0, 2, 3, 1)


def on_objects(scenes: Samples, sample: Sample) -> tuple[float, float]:
    """Mean probability on objects, and on what is behind them."""
    size = sample.probability.shape[-2:]
    objects = F.interpolate((scenes.masks != BACKGROUND)[:, None].float(), size)  # nearest: zeros and ones
    return tuple(((sample.probability * part).sum() / part.sum()).item() for part in (objects, 1 - objects))


def maps(seen: dict[str, Sample], image: int) -> dict[str, Tensor]:
    """The probability (h, w) at the last convolution of every block, for one of the images."""
    last = {name: sample for name, sample in seen.items() if name.endswith("samplers.1")}
    places = {name: name.removeprefix("backbone.layer").split(".")[:2] for name in last}
    titles = {name: f"stage {stage}, block {int(block) + 1}" for name, (stage, block) in places.items()}
    return {titles[name]: sample.probability[image, 0] for name, sample in last.items()}


def filled(picture: Tensor, share: float, seed: int) -> dict[str, Tensor]:
    """A picture (3, H, W) in [0, 1], its pixels by lot, and what interpolations make of these, each (H, W, 3)."""
    mask = bernoulli_mask(torch.full((1, 1, *picture.shape[1:]), share), torch.Generator().manual_seed(seed))
    kernels = {f"RBF, sigma {sigma}": (rbf_kernel(torch.tensor(float(sigma)), 7), 1e-5) for sigma in (3, 1)}
    kernels["average pooling"] = (torch.ones(7, 7), 1e-5)
    found = {"picture": picture[None], "by lot; fill zeros": picture * mask}
    found |= {name: interpolate(picture[None], mask, *kernel) for name, kernel in kernels.items()}
    return {name: image[0].permute(1, 2, 0).clamp(0, 1) for name, image in found.items()}


def empty(masks: Sequence[Tensor]) -> list[float]:
    """Share of unsampled positions without a sample in the window, for each (N, 1, H, W) mask."""
    tallies = [Tally() for _ in masks]
    for tally, mask in zip(tallies, masks, strict=True):
        tally.add("", Sample(mask, mask))
    return [tally.empty_windows for tally in tallies]
