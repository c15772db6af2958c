"""What a candidate of a search is worth: trained for a few epochs by itself, or read off shared weights.

`Search` are the settings of both. Both ways are callables of plain values, so that a job carries nothing but settings
to another process or machine; data and weights are read there, once a process.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from math import isfinite
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dynlib import backbones, checkpoints, settings, train
from dynlib.catalogue import DATASETS
from dynlib.cost import count, example
from dynlib.data import Batches, hold_out, load
from dynlib.data.augment import flip_and_shift
from dynlib.errors import InputError
from dynlib.ops import renewing
from dynlib.papers.s2dnas import Config, convert, macs_by_choice, recut, summed_loss
from dynlib.papers.s2dnas.exits import collect, shared
from dynlib.papers.s2dnas.search import OMEGA, Measured, Space

STATISTICS = 256  # training images, at least, on which batch norms are measured under shared weights


@dataclass(frozen=True)
class Search:
    """Settings of a search; the proxy is the small network on small images that stands for the one to be trained."""

    dataset: str
    proxy_arch: str = "cifar_resnet8"  # with as many map sizes as the network to be trained
    proxy_width: int | None = None  # channels of its first stage where not as published
    proxy_size_px: int | None = 16  # side of its images where it is not the stored one
    proxy_images: int = 8000  # of the training split
    proxy_held_out_images: int = 2000  # others of the training split, on which rewards are measured
    proxy_epochs: int = 8  # of the shared weights, or of every candidate
    shared_weights: bool = True  # one set for all candidates; false: each is trained by itself, as in the paper
    batch_size: int = 128  # as of the recipe
    lr: float = 0.1
    search_stages: int = 3
    search_groups: int = 8  # of channels
    candidates: int = 100  # of each search
    omega: float = OMEGA  # whose best are retrained
    omegas: tuple[float, ...] = ()  # searched besides
    ranked: int = 0  # every architecture is measured where the space has at most so many
    retrained: int = 3  # best of the policy, and as many drawn at random; the paper has 10 of the policy
    retrain_epochs: int = 8

    def __post_init__(self):
        for what, name, known in (("dataset", self.dataset, DATASETS), ("arch", self.proxy_arch, backbones.names())):
            if name not in known:
                raise settings.unknown(what, name, known)
        for name in ("proxy_images", "proxy_held_out_images", "batch_size", "candidates", "retrained"):
            settings.check_number(self, name, 1, whole=True)
        held, classes = self.proxy_held_out_images, DATASETS[self.dataset].class_count
        if held % classes:
            raise InputError(f"proxy_held_out_images is {held}; it is a multiple of the {classes} classes")
        for value in (self.omega, *self.omegas):
            if not isfinite(value) or value > 0:
                raise InputError(f"omega is {value}; it is 0 or less, or cost would be worth having")
        _ = self.space(1), train.Schedule(self.proxy_epochs, self.lr), train.Schedule(self.retrain_epochs, self.lr)

    def space(self, sizes: int) -> Space:
        """The architectures of a network with so many map sizes."""
        return Space(sizes, self.search_stages, self.search_groups)


@dataclass(frozen=True)
class Trial:
    """Inner training of the search (Sec. 3): one candidate, from scratch, a few epochs; called with its settings.

    Training images and the held-out ones that are measured both come from the training split, drawn by the seed.
    """

    asked: Search
    epochs: int
    seed: int = 0
    root: str | None = None  # of the data, where the job runs
    accelerator: str = "auto"
    precision: str = "32-true"

    def __call__(self, config: Config) -> Measured:
        """Train the candidate and measure it at the thresholds of `papers.s2dnas.exits.SHARED`."""
        began = time.process_time()
        model = convert(self.network(), config)
        self.fit(model, summed_loss)
        return self.measure(model, began)

    def network(self) -> nn.Module:
        """The static network with weights that follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            classes = DATASETS[self.asked.dataset].class_count
            return backbones.build(self.asked.proxy_arch, classes, self.asked.proxy_width)

    def fit(self, model: nn.Module, objective: train.Objective, progress: bool = False) -> list[dict]:
        """Train, with the learning rate falling to zero over the few epochs; the curve."""
        schedule = train.Schedule(self.epochs, self.asked.lr)
        hardware = train.Hardware(self.accelerator, precision=self.precision)
        how = {"seed": self.seed, "objective": objective, "hardware": hardware, "progress": progress}
        return train.fit(model, self.data()[0], schedule, **how)

    def data(self) -> tuple[Batches, Batches]:
        """Training and held-out batches; both normalised by the training images."""
        return _data(self)

    def measure(self, model: fx.GraphModule, began: float) -> Measured:
        """What the network does on held-out images, with the processor's time since `began`."""
        _, held = self.data()
        size = tuple(held.samples.images.shape[-2:])
        outcomes = shared(*collect(model, held), list(macs_by_choice(model, size).values()))
        return Measured(tuple(outcomes), _static_macs(self, size), time.process_time() - began)


@lru_cache(maxsize=1)
def _data(trial: Trial) -> tuple[Batches, Batches]:
    asked, known = trial.asked, DATASETS[trial.asked.dataset]
    options = {"size_px": asked.proxy_size_px} if asked.proxy_size_px is not None else {}
    if "n" in known.options:  # made to measure
        options["n"] = 2 * (asked.proxy_images + asked.proxy_held_out_images)
    samples = load(asked.dataset, known.splits[0], trial.root, **options)
    rest, held = hold_out(samples, asked.proxy_held_out_images, trial.seed)
    taken = rest if len(rest) == asked.proxy_images else hold_out(rest, asked.proxy_images, trial.seed)[1]
    batches = Batches(taken, asked.batch_size, augment=flip_and_shift)
    return batches, replace(batches, samples=held, augment=None, batch_size=500)


@lru_cache(maxsize=4)
def _static_macs(trial: Trial, size: tuple[int, int]) -> int:
    return count(trial.network(), example(size)).macs


@dataclass(frozen=True)
class SharedWeights:
    """The proxy for a CPU: one set of weights for all candidates, kept in a file; called with a candidate's settings.

    A departure from the paper, where every candidate is trained by itself: the ranks of the two differ, and a chapter
    that uses the proxy reports by how much.
    """

    trial: Trial  # how and on what the weights are trained
    space: Space
    path: str  # of the weights, where the job runs

    def train(self, progress: bool = False) -> list[dict]:
        """Train the weights and write the file; the curve.

        Every batch trains a random architecture, and the densest one beside it.
        """
        model = convert(self.trial.network(), self.space.config(self.space.densest()))

        def objective(network: nn.Module, images: Tensor, targets: Tensor, done: float) -> Tensor:
            total = 0.0
            for tokens in (self.space.draw(), self.space.densest()):
                recut(model, self.space.config(tokens))
                total = total + sum(F.cross_entropy(logits, targets) for logits in network(images).exits)
            return total

        curve = self.trial.fit(model, objective, progress)
        checkpoints.write(Path(self.path), model.state_dict())
        _shared_network.cache_clear()
        return curve

    def __call__(self, config: Config) -> Measured:
        """Cut the shared network, measure its batch norms anew, and measure it at the thresholds of `SHARED`.

        Raises InputError where the weights have not been trained.
        """
        began = time.process_time()
        batches, _ = self.trial.data()
        model = _shared_network(self)
        recut(model, config)
        renew_statistics(model, batches, -(-STATISTICS // batches.batch_size))
        return self.trial.measure(model, began)


@lru_cache(maxsize=1)
def _shared_network(proxy: SharedWeights) -> fx.GraphModule:
    if not Path(proxy.path).exists():
        raise InputError(f"path is {proxy.path}; there are no shared weights, train them first")
    model = convert(proxy.trial.network(), proxy.space.config(proxy.space.densest()))
    model.load_state_dict(checkpoints.read(Path(proxy.path), "a file of shared weights")[0])
    return model


def renew_statistics(model: nn.Module, batches: Batches, number: int) -> None:
    """Replace the running statistics of every batch norm by those of the first `number` batches, unaugmented.

    A piece with shared weights sees other inputs under other cuts; a network trained by itself needs no such thing.
    """
    with renewing(model, [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]):
        for images, _ in islice(batches.epoch(None, next(model.parameters()).device), number):
            model(images)
