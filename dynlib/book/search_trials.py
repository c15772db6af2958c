"""What a candidate of the search is worth: trained for a few epochs by itself, or read off shared weights.

Both are callables of plain values, so that a job carries nothing but settings to another process or machine; data and
weights are read there, once a process.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from dynlib import backbones, checkpoints, train
from dynlib.catalogue import DATASETS
from dynlib.cost import count, example
from dynlib.data import Batches, hold_out, load
from dynlib.data.augment import flip_and_shift
from dynlib.errors import InputError
from dynlib.ops import renewing
from dynlib.papers.s2dnas import Config, convert, macs_by_choice, recut, summed_loss
from dynlib.papers.s2dnas.exits import collect, shared
from dynlib.papers.s2dnas.search import Measured, Space

STATISTICS = 256  # training images, at least, on which batch norms are measured under shared weights


@dataclass(frozen=True)
class Trial:
    """Inner training of the search (Sec. 3): one candidate, from scratch, a few epochs; called with its settings.

    Training images and the held-out ones that are measured both come from the training split, drawn by the seed.
    """

    arch: str
    dataset: str
    train_images: int = 45_000
    held_out_images: int = 5_000
    epochs: int = 5
    batch_size: int = 128
    lr: float = 0.1
    width: int | None = None
    size_px: int | None = None  # side of the images where it is not the stored one
    seed: int = 0
    root: str | None = None  # of the data, where the job runs
    accelerator: str = "auto"
    precision: str = "32-true"

    def __call__(self, config: Config) -> Measured:
        """Train the candidate and measure it at the thresholds of `papers.s2dnas.exits.SHARED`."""
        began = time.process_time()
        batches, held = self.data()
        model = convert(self.network(), config)
        train.fit(model, batches, self.schedule(), seed=self.seed, objective=summed_loss, hardware=self._hardware())
        return self.measure(model, held, began)

    def network(self) -> nn.Module:
        """The static network with weights that follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return backbones.build(self.arch, DATASETS[self.dataset].class_count, self.width)

    def schedule(self) -> train.Schedule:
        """Cosine to zero over the few epochs."""
        return train.Schedule(self.epochs, self.lr)

    def data(self) -> tuple[Batches, Batches]:
        """Training and held-out batches; both normalised by the training images."""
        return _data(self)

    def measure(self, model: fx.GraphModule, held: Batches, began: float) -> Measured:
        """What the network does on held-out images, with the processor's time since `began`."""
        size = tuple(held.samples.images.shape[-2:])
        outcomes = shared(*collect(model, held), list(macs_by_choice(model, size).values()))
        return Measured(tuple(outcomes), _static_macs(self, size), time.process_time() - began)

    def _hardware(self) -> train.Hardware:
        return train.Hardware(self.accelerator, precision=self.precision)


@lru_cache(maxsize=1)
def _data(trial: Trial) -> tuple[Batches, Batches]:
    known = DATASETS[trial.dataset]
    options = {"size_px": trial.size_px} if trial.size_px is not None else {}
    if "n" in known.options:  # made to measure
        options["n"] = 2 * (trial.train_images + trial.held_out_images)
    samples = load(trial.dataset, known.splits[0], None if trial.root is None else Path(trial.root), **options)
    rest, held = hold_out(samples, trial.held_out_images, trial.seed)
    taken = rest if len(rest) == trial.train_images else hold_out(rest, trial.train_images, trial.seed)[1]
    batches = Batches(taken, trial.batch_size, augment=flip_and_shift)
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
        batches, _ = self.trial.data()
        model = convert(self.trial.network(), self.space.config(self.space.densest()))

        def objective(network: nn.Module, images: Tensor, targets: Tensor, done: float) -> Tensor:
            total = 0.0
            for tokens in (self.space.draw(), self.space.densest()):
                recut(model, self.space.config(tokens))
                total = total + sum(F.cross_entropy(logits, targets) for logits in network(images).exits)
            return total

        curve = train.fit(
            model,
            batches,
            self.trial.schedule(),
            seed=self.trial.seed,
            objective=objective,
            hardware=self.trial._hardware(),
            progress=progress,
        )
        checkpoints.write(Path(self.path), model.state_dict())
        _shared_network.cache_clear()
        return curve

    def __call__(self, config: Config) -> Measured:
        """Cut the shared network, measure its batch norms anew, and measure it at the thresholds of `SHARED`.

        Raises InputError where the weights have not been trained.
        """
        began = time.process_time()
        batches, held = self.trial.data()
        model = _shared_network(self)
        recut(model, config)
        renew_statistics(model, batches, -(-STATISTICS // batches.batch_size))
        return self.trial.measure(model, held, began)


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
