"""Which positions are computed: scores, the masks drawn from them, and the loss that keeps the masks sparse."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib.ops import watching

STOCHASTIC, DETERMINISTIC, UNIFORM = "stochastic", "deterministic", "uniform"
UNDECIDED = (0.05, 0.95)  # between these probabilities chance has a say: masks all outside have collapsed


class Sample(NamedTuple):
    """What a sampler yields for a map of H x W positions."""

    mask: Tensor  # (N, 1, H, W), soft in training, 0 or 1 in evaluation; float32
    probability: Tensor  # (N, 1, H, W), pi: of being computed, before noise and grid; float32


def logistic_noise(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The difference of two Gumbel draws, log U - log(1 - U), in the shape of `logits`; no generator: torch's own."""
    smallest = torch.finfo(torch.float32).tiny
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device).clamp_(smallest, 1 - 2**-24)
    return uniform.log() - torch.log1p(-uniform)


def gumbel_mask(
    logits: Tensor,
    tau: float,
    noise: Tensor | None = None,
) -> Tensor:
    """The two-class Gumbel-Softmax, sigmoid((logit(pi) + noise) / tau), of any shape; no noise: deterministic.

    With Gumbel draws g1 and g2, exp((log pi + g1) / tau) over its sum with exp((log(1 - pi) + g2) / tau) is the sigmoid
    of the difference of the exponents: one logistic draw g1 - g2 does, and pi needs no clamp.
    """
    noisy = logits if noise is None else logits + noise
    return torch.sigmoid(noisy / tau)  # eq-sampling-mask


def bernoulli_mask(probability: Tensor, generator: torch.Generator) -> Tensor:
    """A mask of zeros and ones: 1 with the given probability, of any shape. Drawn on the CPU, so every device agrees.

    It is where the Gumbel mask passes 1/2, whatever the temperature: P(logit(pi) + noise > 0) = pi.
    """
    draws = torch.rand(probability.shape, generator=generator)
    mask = draws.to(probability.device) < probability
    return mask.to(probability.dtype)


def grid(height: int, width: int, interval: int, device: torch.device | None = None) -> Tensor:
    """The grid prior M_grid (H, W): 1 where row and column are multiples of `interval`, whatever is drawn."""
    rows = torch.arange(height, device=device) % interval == 0
    columns = torch.arange(width, device=device) % interval == 0
    return (rows[:, None] & columns).float()


def temperature(done: float, final: float) -> float:
    """The temperature when the share `done` of the training is over: from 1 to `final`, the same factor every step.

    The released 0.99998 a step reaches 0.03 after the 175,900 steps of its schedule; the end is kept, not the factor.
    """
    return final**done


class Sampler(nn.Module):
    """Scores, then samples, the positions of one masked convolution: block input (N, C, H, W) -> `Sample`.

    The map of the sample is `stride` times smaller. In training the mask is soft and its noise comes from torch's own
    generator, as dropout's does. In evaluation it is hard and follows from `seed`, from `number` (each mask of a
    network has its own field of noise) and from the place in the batch: the same input gives the same mask. `tau` is
    set from outside, by `set_temperature`, never counted in forward.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        number: int,
        *,
        deterministic: bool,
        bias: float,
        interval: int | None,
        density: float | None,
        seed: int,
    ):
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 3, stride, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.constant_(self.score.bias, bias)
        self.number, self.deterministic, self.interval = number, deterministic, interval
        self.density, self.seed = density, seed
        self.tau = 1.0

    def generator(self) -> torch.Generator:
        """The source of this mask's noise in evaluation."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.number)

    def forward(self, x: Tensor) -> Sample:
        """Score every position and sample."""
        logits = self.score(x).float()  # (N, 1, H', W'); half precision ends here
        if self.density is not None:
            logits = torch.zeros_like(logits) + math.log(self.density / (1 - self.density))
        return self.sample(logits)

    def sample(self, logits: Tensor) -> Sample:
        """The mask for scores (N, 1, H, W), the raw output of the score's convolution: logit(pi)."""
        probability = torch.sigmoid(logits)  # eq-sampling-mask
        if self.training:
            noise = None if self.deterministic else logistic_noise(logits)
            mask = gumbel_mask(logits, self.tau, noise)
        elif self.deterministic:
            mask = (probability >= 0.5).float()
        else:
            mask = bernoulli_mask(probability, self.generator())
        if self.interval is not None:
            on_grid = grid(*mask.shape[-2:], self.interval, mask.device)
            mask = torch.maximum(mask, on_grid)  # eq-sampling-mask
        return Sample(mask, probability)


def samplers(network: nn.Module) -> dict[str, Sampler]:
    """Every sampler of a network, by name, in order."""
    return {name: part for name, part in network.named_modules() if isinstance(part, Sampler)}


def set_temperature(network: nn.Module, tau: float) -> None:
    """Give every mask of the network this temperature, for training."""
    for sampler in samplers(network).values():
        sampler.tau = tau


def set_seed(network: nn.Module, seed: int) -> None:
    """Give every mask of the network the noise of this seed, for evaluation."""
    for sampler in samplers(network).values():
        sampler.seed = seed


@contextmanager
def observed(network: nn.Module) -> Iterator[dict[str, Sample]]:
    """Collects what every sampler yields while the network runs in the block, by the sampler's name.

    Works inside any host: a detector or a segmentation network returns what it always returns.
    """
    found: dict[str, Sample] = {}
    with watching(samplers(network), lambda name, inputs, sample: found.update({name: sample})):
        yield found


class Tally:
    """Sums over all masks that a network draws while it is watched."""

    def __init__(self, window: int = 7):
        self.window = window
        self._sampled: dict[str, float] = {}  # by sampler: sum of the density of each image
        self._images: dict[str, int] = {}
        self._undecided: dict[str, float] = {}  # by sampler: sum of the share of undecided positions of each image
        self._empty = self._missing = 0

    def add(self, name: str, sample: Sample) -> None:
        """Take in a sample whose mask has zeros and ones."""
        mask, (low, high) = sample.mask, UNDECIDED
        between = ((sample.probability > low) & (sample.probability < high)).double()
        self._undecided[name] = self._undecided.get(name, 0.0) + between.mean((1, 2, 3)).sum().item()
        self._sampled[name] = self._sampled.get(name, 0.0) + mask.mean((1, 2, 3)).double().sum().item()
        self._images[name] = self._images.get(name, 0) + len(mask)
        near = F.max_pool2d(mask, self.window, 1, self.window // 2)
        self._empty += int((near == 0).sum())
        self._missing += int((mask == 0).sum())

    @property
    def densities(self) -> dict[str, float]:
        """Mean share of sampled positions of each mask, by the sampler's name."""
        return {name: sampled / self._images[name] for name, sampled in self._sampled.items()}

    @property
    def undecided(self) -> dict[str, float]:
        """Mean share of the positions of each mask whose probability lies inside `UNDECIDED`, by the sampler's name."""
        return {name: share / self._images[name] for name, share in self._undecided.items()}

    @property
    def empty_windows(self) -> float:
        """Share of the unsampled positions with no sample in the window around them; 0 where all are sampled."""
        return self._empty / self._missing if self._missing else 0.0


@contextmanager
def tallied(network: nn.Module, window: int = 7) -> Iterator[Tally]:
    """Counts over the masks of every forward pass in evaluation mode inside the block; `window` is a filler's."""
    tally = Tally(window)
    with watching(samplers(network), lambda name, inputs, sample: tally.add(name, sample)):
        yield tally


def sparse_loss(
    samples: Mapping[str, Sample],
    shares: Mapping[str, float],
    gamma: float,
) -> Tensor:
    """The loss gamma / B x sum over B blocks of share x mean probability; the shares of a block's masks add up to 1.

    It acts on probabilities, before noise and grid, so that it has a gradient at every position.
    """
    blocks = round(sum(shares[name] for name in samples))
    means = {name: of.probability.mean() for name, of in samples.items()}
    total = sum(shares[name] * mean for name, mean in means.items())
    return gamma / blocks * total  # eq-sampling-loss
