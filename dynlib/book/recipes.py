"""What decides a training besides the method and the seed: network, data, schedule; and the batches that follow."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import backbones, settings, train
from dynlib.backbones import efficientnet_lite
from dynlib.book import zoo  # noqa: F401  lets backbones.build know the authors' networks
from dynlib.cost import MOST_PX
from dynlib.data import (
    DATASETS,
    Batches,
    DetectionBatches,
    FolderBatches,
    FolderSamples,
    Samples,
    augment,
    hold_out,
    load,
)
from dynlib.data.vision import IMAGENET_MEAN, IMAGENET_STD
from dynlib.errors import InputError
from dynlib.papers import octconv
from dynlib.paths import RAW
from dynlib.settings import LATER
from dynlib.tasks import TASKS, Task


@dataclass(frozen=True)
class Recipe:
    """What decides a training result besides the method and the seed."""

    arch: str  # where the data set is not for classification, the backbone of a network for its task
    dataset: str
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0
    width: int | None = None  # channels of the first stage, for the networks that have such a knob
    train_images: int | None = None  # the first so many of each class's share in stored order; None: all
    size_px: int | None = None  # side of the images where it is not the stored one; the shorter of oblong ones
    test_sizes_px: tuple[int, ...] = ()  # further sides to classify at (square images)
    held_out_images: int | None = field(default=None, metadata=LATER)  # of the training split; a method chooses on them
    decay: str = field(default="cosine", metadata=LATER)  # how the learning rate falls to 0: cosine, linear
    label_smoothing: float = field(default=0.0, metadata=LATER)  # of classes; share of the weight spread over all
    weights: str | None = field(default=None, metadata=LATER)  # a trained network to start from, see `narrowed`
    teacher: str | None = field(default=None, metadata=LATER)  # likewise, to learn from besides the labels
    int8: bool = field(default=False, metadata=LATER)  # deploy what was trained, and test that too
    octaves: float = field(default=0.0, metadata=LATER)  # share of low channels, put in before the method converts

    def __post_init__(self):
        if self.arch not in (known := backbones.names()):
            raise settings.unknown("arch", self.arch, known)
        if self.dataset not in DATASETS:
            raise settings.unknown("dataset", self.dataset, DATASETS)
        if DATASETS[self.dataset].clips != backbones.takes_clips(self.arch):
            kind, other = ("clips", "images")[:: 1 if DATASETS[self.dataset].clips else -1]
            raise InputError(f"dataset {self.dataset} holds {kind}, but arch {self.arch} takes {other}; give one kind")
        if self.arch not in (able := self.task.archs()):
            what = f"dataset {self.dataset} is for {self.task.name}, which arch {self.arch} is no backbone for"
            raise InputError(f"{what}; allowed: {', '.join(able)}")
        for name, value in (("test_sizes_px", [*self.test_sizes_px]), ("held_out_images", self.held_out_images)):
            if value and self.task.name != "classification":
                what = f"{name} is {value}, but dataset {self.dataset} is for {self.task.name}"
                raise InputError(f"{what}; leave it out, or give one for classification")
        if self.weights not in (None, self.arch):
            raise InputError(f"weights is {self.weights}; allowed: {self.arch}, the arch")
        if self.teacher not in (None, *known):
            raise settings.unknown("teacher", self.teacher, known)
        settings.check_number(self, "octaves", 0, 1)
        settings.check_number(self, "label_smoothing", 0, 1, below=True)
        if self.task.name != "classification" and (self.label_smoothing or self.teacher or self.int8):
            what = "label_smoothing" if self.label_smoothing else "teacher" if self.teacher else "int8"
            raise InputError(f"dataset {self.dataset} is for {self.task.name}; leave {what} out")
        settings.check_number(self, "batch_size", 1, whole=True)
        settings.check_number(self, "size_px", 1, MOST_PX, whole=True, optional=True)
        for name in ("width", "train_images", "held_out_images"):
            settings.check_number(self, name, 1, whole=True, optional=True)
        if not all(1 <= size <= MOST_PX for size in self.test_sizes_px):
            raise InputError(f"test_sizes_px is {[*self.test_sizes_px]}; each is from 1 to {MOST_PX}")
        classes = DATASETS[self.dataset].class_count
        if self.held_out_images is not None and self.held_out_images % classes:
            raise InputError(f"held_out_images is {self.held_out_images}; it is a multiple of the {classes} classes")
        self.schedule()

    @property
    def task(self) -> Task:
        """What the data set is for."""
        return TASKS[DATASETS[self.dataset].task]

    def schedule(self) -> train.Schedule:
        """The learning-rate schedule; raises InputError for values it refuses."""
        rest = {"weight_decay": self.weight_decay, "warmup_epochs": self.warmup_epochs, "decay": self.decay}
        return train.Schedule(self.epochs, self.lr, **rest)

    def soften(self, classes: int, root: Path | None, device: torch.device | str) -> train.Soften | None:
        """What makes targets of labels; None where the labels themselves are learnt."""
        if not self.label_smoothing and self.teacher is None:
            return None
        teacher = None if self.teacher is None else trained(self.teacher, classes, root).eval().to(device)
        return train.soften(self.label_smoothing, classes, teacher)


def with_octaves(network: nn.Module, share: float) -> nn.Module:
    """The network with octaves of that share of low channels in it, for a method to go around; itself at 0."""
    return octconv.convert(network, octconv.Config(alpha=share)) if share else network


def trained(name: str, classes: int, root: Path | None) -> nn.Module:
    """The network `name` of `backbones`, trained: its weights lie in `<data root>/weights/<name>.safetensors`.

    A folder `weights` beside the data root does as well. Such weights are for pixels normalised as ImageNet's are.
    Raises InputError where there are none, or others.
    """
    root = RAW if root is None else root
    places = [folder / "weights" / f"{name}.safetensors" for folder in (root, root.absolute().parent)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(f"no weights {places[0]}; allowed: a file of tensors of {name} there or in {places[1].parent}")
    network = backbones.build(name, classes)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not hold the tensors of {name}: {str(error).splitlines()[0]}") from error
    return network


def narrowed(network: nn.Module, wide: nn.Module) -> nn.Module:
    """A network of fewer channels with the leading ones of a `wide` one's weights, as the first stage of S2DNAS has.

    Raises InputError where some tensor is not a corner of the wide network's.
    """
    kept, own = wide.state_dict(), network.state_dict()
    for name, tensor in own.items():
        if name not in kept or any(few > many for few, many in zip(tensor.shape, kept[name].shape, strict=True)):
            raise InputError(
                f"width: {name} of shape {[*tensor.shape]} is no part of the trained network; give a smaller width"
            )
        own[name] = kept[name][tuple(slice(size) for size in tensor.shape)]
    network.load_state_dict(own)
    return network


@lru_cache(maxsize=2)
def data(
    name: str,
    batch_size: int,
    train_images: int | None,
    size_px: int | None,
    root: Path | None,
    held_out_images: int | None = None,
) -> tuple[Batches | FolderBatches, Batches | FolderBatches]:
    """Training and evaluation batches of a data set, normalised by the training set's statistics.

    Held-out images are in neither. Sets that fit into memory are decoded once; a folder like ImageNet's is decoded
    while training.
    """
    known = DATASETS[name]
    samples, _ = _training(name, size_px, held_out_images, root)
    test = load(name, known.splits[1], root, **_options(name, size_px))
    if train_images is not None:
        one_kind = torch.zeros(len(samples), dtype=torch.int64)
        samples = samples.subset(balanced(one_kind if samples.labels is None else samples.labels, train_images))
    if isinstance(samples, FolderSamples):
        folder = FolderBatches(samples, batch_size, size_px or 224)
        return folder, replace(folder, samples=test)
    kind = DetectionBatches if known.task == "detection" else Batches
    batches = kind(samples, batch_size, augment=getattr(augment, known.augment))
    held_out = 100 if known.task == "classification" else batch_size  # what the caches hold; dense answers take more
    return batches, replace(batches, samples=test, augment=None, batch_size=held_out)


def data_of(recipe: Recipe, root: Path | None) -> tuple[Batches | FolderBatches, Batches | FolderBatches]:
    """`data` as a recipe asks for it; where it starts from trained weights, normalised as these want it."""
    asked = (recipe.dataset, recipe.batch_size, recipe.train_images, recipe.size_px, root, recipe.held_out_images)
    both = data(*asked)
    if recipe.weights is None and recipe.teacher is None:
        return both
    mean, std = efficientnet_lite.PIXELS if recipe.arch == "efficientnet_lite0" else (IMAGENET_MEAN, IMAGENET_STD)
    return tuple(replace(batches, mean=mean, std=std) for batches in both)


def held_out(recipe: Recipe, root: Path | None) -> Batches | FolderBatches:
    """What a recipe holds out of the training split, as evaluation batches. Raises InputError where that is nothing."""
    samples = _training(recipe.dataset, recipe.size_px, recipe.held_out_images, root)[1]
    if samples is None:
        raise InputError("held_out_images is null; give a number of images to choose on")
    return replace(data_of(recipe, root)[1], samples=samples)


@lru_cache(maxsize=1)
def _training(
    name: str, size_px: int | None, held_out_images: int | None, root: Path | None
) -> tuple[Samples | FolderSamples, Samples | None]:
    """The training split and what is held out of it, the same images whatever the seed of the run."""
    samples = load(name, DATASETS[name].splits[0], root, **_options(name, size_px))
    return (samples, None) if held_out_images is None else hold_out(samples, held_out_images, seed=0)


def _options(name: str, size_px: int | None) -> dict:
    known = DATASETS[name]
    if size_px is None or "size_px" not in known.options:
        return {}
    return {"size_px": size_px if known.aspect == 1 else (size_px, round(size_px * known.aspect))}


def at_size(batches: Batches | FolderBatches, size_px: int) -> Batches | FolderBatches:
    """The same images at another side: bilinear, anti-aliased when smaller."""
    if isinstance(batches, FolderBatches):
        return replace(batches, size_px=size_px)
    square, smooth = (size_px, size_px), {"mode": "bilinear", "antialias": True}
    parts = batches.samples.images.split(500)
    flat = [F.interpolate(part.flatten(1, -3).float(), square, **smooth) for part in parts]  # frames as channels
    images = torch.cat([part.round().clamp(0, 255).byte() for part in flat])
    images = images.unflatten(1, batches.samples.images.shape[1:-2])
    return replace(batches, samples=replace(batches.samples, images=images))


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of the first images of each class, `count` in all, in stored order."""
    if not 0 < count <= len(labels):
        raise InputError(f"train_images is {count}; the data set has {len(labels)}")
    classes = int(labels.max()) + 1
    quota = [count // classes + (c < count % classes) for c in range(classes)]
    picked = [torch.nonzero(labels == c).flatten()[:q] for c, q in enumerate(quota)]
    return torch.cat(picked).sort().values
