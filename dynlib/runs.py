"""One run makes one record: network, method, data and schedule brought together, found again by their hash."""

import importlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import records, settings, train
from dynlib.backbones import build
from dynlib.cost import Cost, count, example
from dynlib.data import DATASETS, Batches, Samples, load
from dynlib.data.augment import flip_and_shift
from dynlib.errors import InputError
from dynlib.papers import METHODS
from dynlib.paths import RESULTS, RUNS
from dynlib.records import Record


def method(key: str) -> ModuleType:
    """The module of a paper: Config, convert, cost, deploy. Raises InputError for an unknown key."""
    if key not in METHODS:
        raise settings.unknown("method", key, METHODS)
    return importlib.import_module(f"dynlib.papers.{key}")


@dataclass(frozen=True)
class Recipe:
    """What decides a training result besides the method and the seed."""

    arch: str
    dataset: str
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0
    width: int | None = None  # channels of the first stage, for the networks that have such a knob
    train_images: int | None = None  # the first so many of each class's share in stored order; None: all
    size_px: int | None = None  # side of the training images where it is not the stored one
    test_sizes_px: tuple[int, ...] = ()  # further sides to evaluate at (square images)

    def schedule(self) -> train.Schedule:
        """The learning-rate schedule; raises InputError for values it refuses."""
        return train.Schedule(self.epochs, self.lr, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)


def describe(config: object, recipe: Recipe) -> dict:
    """What a record of this run is found by: the method's settings and the recipe, as plain values."""
    return {"method": asdict(config), "recipe": asdict(recipe) | {"test_sizes_px": list(recipe.test_sizes_px)}}


def recipe_of(values: Mapping) -> Recipe:
    """A recipe from plain values; raises InputError for an unknown name or a wrong type."""
    return settings.build(Recipe, values)


def recorded(key: str, config: object, recipe: Recipe, *, profile: str, seed: int) -> Record | None:
    """The committed record of a run, or None where it is still to be made."""
    config_as_json = _plain(describe(config, recipe))
    return records.lookup(key, "training", profile, config_as_json, seed)


def run(
    key: str,
    config: object,
    recipe: Recipe,
    *,
    profile: str,
    seed: int,
    root: Path | None = None,
    hardware: train.Hardware | None = None,
    checkpoints: Path | None = RUNS,
    progress: bool = False,
) -> Record:
    """Train once and return the record, unsaved.

    With `checkpoints` the state is kept there under the run's hash and an interrupted run goes on from it.
    """
    began = time.perf_counter()
    paper = method(key)
    schedule = recipe.schedule()
    batches, valid = data(recipe.dataset, recipe.batch_size, recipe.train_images, recipe.size_px, root)
    described = _plain(describe(config, recipe))
    digest = records.config_hash(described)
    network = fresh(recipe, len(batches.samples.classes), seed)
    model = paper.convert(network, config)
    side = batches.samples.images.shape[-1]
    cost = count(model, example(side))
    curve = train.fit(
        model,
        batches,
        schedule,
        seed=seed,
        valid=valid,
        hardware=hardware,
        checkpoint=None if checkpoints is None else checkpoints / key / f"{profile}-{digest}-s{seed}.safetensors",
        progress=progress,
    )
    metrics = train.evaluate(model, valid)
    metrics |= {"macs": cost.macs, "params": cost.params, "size_px": side}
    for size in recipe.test_sizes_px:
        metrics[f"top1_at_{size}_px"] = train.evaluate(model, replace(valid, samples=resized(valid.samples, size)))[
            "top1"
        ]
    device = next(model.parameters()).device
    return Record(
        key=key,
        kind="training",
        profile=profile,
        config=described,
        config_hash=digest,
        dataset={
            "name": recipe.dataset,
            "train_images": len(batches.samples),
            "test_images": len(valid.samples),
            "train_sha256": batches.samples.checksum,
            "test_sha256": valid.samples.checksum,
        },
        seed=seed,
        metrics=metrics,
        curve=curve,
        environment=records.environment(
            torch.cuda.get_device_name(device) if device.type == "cuda" else None, torch.get_num_threads()
        ),
        wall_s=round(time.perf_counter() - began, 1),
    )


def ensure(key: str, config: object, recipe: Recipe, *, profile: str, seed: int, **options) -> Record:
    """The record of a run: read where it exists, else measured and, outside the smoke profile, saved.

    Smoke results are not evidence and cost seconds: they are measured every time, so a chapter always really trains.
    """
    if profile == "smoke":
        return run(key, config, recipe, profile=profile, seed=seed, checkpoints=None, **options)
    if (found := recorded(key, config, recipe, profile=profile, seed=seed)) is not None:
        return found
    record = run(key, config, recipe, profile=profile, seed=seed, **options)
    records.save(record, RESULTS)
    return record


def fresh(recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """The backbone of a recipe with weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(recipe.arch, classes, **({} if recipe.width is None else {"width": recipe.width}))


@lru_cache(maxsize=2)
def data(name: str, batch_size: int, train_images: int | None, size_px: int | None, root: Path | None) -> tuple:
    """Training and evaluation batches of a data set, decoded once; normalised by the training set's statistics."""
    if name not in DATASETS:
        raise InputError(f"dataset {name!r} is unknown; allowed: {', '.join(DATASETS)}")
    options = {} if size_px is None else {"size_px": size_px}
    first, second = DATASETS[name].splits[:2]
    samples, test = load(name, first, root, **options), load(name, second, root, **options)
    if train_images is not None:
        samples = samples.subset(balanced(samples.labels, train_images))
    batches = Batches(samples, batch_size, augment=flip_and_shift)
    return batches, replace(batches, samples=test, augment=None, batch_size=500)


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of the first images of each class, `count` in all, in stored order."""
    if not 0 < count <= len(labels):
        raise InputError(f"train_images is {count}; the data set has {len(labels)}")
    classes = int(labels.max()) + 1
    quota = [count // classes + (c < count % classes) for c in range(classes)]
    picked = [torch.nonzero(labels == c).flatten()[:q] for c, q in enumerate(quota)]
    return torch.cat(picked).sort().values


def resized(samples: Samples, size_px: int) -> Samples:
    """The same images at another side: bilinear, anti-aliased when smaller."""
    images = [
        F.interpolate(part.float(), size=(size_px, size_px), mode="bilinear", antialias=True)
        .round()
        .clamp(0, 255)
        .byte()
        for part in samples.images.split(500)
    ]
    return replace(samples, images=torch.cat(images))


def _plain(value: Mapping) -> dict:
    """The value as JSON would give it back: tuples become lists."""
    return {
        key: _plain(item) if isinstance(item, Mapping) else list(item) if isinstance(item, tuple) else item
        for key, item in value.items()
    }
