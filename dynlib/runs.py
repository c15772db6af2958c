"""One run makes one record: network, method, data and schedule brought together, found again by their hash."""

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import backbones, latency, records, settings, train
from dynlib.backbones import build
from dynlib.catalogue import METHODS
from dynlib.cost import count, example
from dynlib.data import DATASETS, Batches, FolderBatches, FolderSamples, load
from dynlib.data.augment import flip_and_shift
from dynlib.errors import InputError
from dynlib.paths import PROFILES, RESULTS, RUNS
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

    def __post_init__(self):
        """Refuse what no run can use, before any work."""
        if self.arch not in (known := backbones.names()):
            raise settings.unknown("arch", self.arch, known)
        classification = [name for name, dataset in DATASETS.items() if dataset.task == "classification"]
        if self.dataset not in classification:
            raise settings.unknown("dataset", self.dataset, classification)
        counts = {"batch_size": self.batch_size, "width": self.width, "train_images": self.train_images}
        counts |= {"size_px": self.size_px} | {f"test_sizes_px {size}": size for size in self.test_sizes_px}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it is 1 or more")
        self.schedule()

    def schedule(self) -> train.Schedule:
        """The learning-rate schedule; raises InputError for values it refuses."""
        return train.Schedule(self.epochs, self.lr, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)


def describe(config: object, recipe: Recipe) -> dict:
    """What a record of this run is found by: the method's settings and the recipe, as plain values."""
    return {"method": asdict(config), "recipe": asdict(recipe) | {"test_sizes_px": list(recipe.test_sizes_px)}}


def recipe_of(values: Mapping) -> Recipe:
    """A recipe from plain values; raises InputError for an unknown name or a wrong type."""
    return settings.build(Recipe, values)


def profile_recipe(chapter: str, profile: str) -> Recipe:
    """The recipe in a profile's file, notebooks/profiles/<profile>/<chapter>.yml."""
    return recipe_of(settings.part_of(Recipe, settings.read(PROFILES / profile / f"{chapter}.yml")))


def recorded(
    key: str, config: object, recipe: Recipe, *, profile: str, seed: int, folder: Path = RESULTS
) -> Record | None:
    """The committed record of a run, or None where it is still to be made."""
    config_as_json = _plain(describe(config, recipe))
    return records.lookup(key, "training", profile, config_as_json, seed, folder)


def run(key: str, config: object, recipe: Recipe, **options) -> Record:
    """Train once, as `fit` does, and return the record alone."""
    return fit(key, config, recipe, **options)[0]


def fit(
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
) -> tuple[Record, nn.Module]:
    """Train once and return the record, unsaved, and the trained network.

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
    side = next(valid.epoch(None))[0].shape[-1]
    cost = count(model, example(side))
    curve = train.fit(
        model,
        batches,
        schedule,
        seed=seed,
        valid=valid,
        hardware=hardware,
        checkpoint=None if checkpoints is None else _checkpoint(checkpoints, key, profile, digest, seed),
        progress=progress,
    )
    metrics = train.evaluate(model, valid)
    metrics |= {"macs": cost.macs, "params": cost.params, "size_px": side}
    for size in recipe.test_sizes_px:
        metrics[f"top1_at_{size}_px"] = train.evaluate(model, at_size(valid, size))["top1"]
    device = next(model.parameters()).device
    record = Record(
        key=key,
        kind="training",
        profile=profile,
        config=described,
        config_hash=digest,
        dataset=_dataset(batches, valid),
        seed=seed,
        metrics=metrics,
        curve=curve,
        environment=records.environment(
            torch.cuda.get_device_name(device) if device.type == "cuda" else None, torch.get_num_threads()
        ),
        wall_s=round(time.perf_counter() - began, 1),
    )
    return record, model


def ensure(key: str, config: object, recipe: Recipe, *, profile: str, seed: int, **options) -> Record:
    """The record of a run: read where it exists, else measured and, outside the smoke profile, saved.

    Smoke results are not evidence and cost seconds: they are measured every time, so a chapter always really trains.
    """
    if profile == "smoke":
        return run(key, config, recipe, profile=profile, seed=seed, checkpoints=None, **options)
    if (found := recorded(key, config, recipe, profile=profile, seed=seed)) is not None:
        return found
    return measure(key, config, recipe, profile=profile, seed=seed, **options)


def measure(
    key: str,
    config: object,
    recipe: Recipe,
    *,
    profile: str,
    seed: int,
    root: Path | None = None,
    folder: Path = RESULTS,
    checkpoints: Path = RUNS,
    **options,
) -> Record:
    """Train and save the record in `folder`; only then is the checkpoint of no more use, and removed.

    Raises InputError, before training, where `folder` holds this run's record of data with other checksums.
    """
    records.check_writable(folder / key)
    present = dataset(recipe, root)
    found = recorded(key, config, recipe, profile=profile, seed=seed, folder=folder)
    if found is not None and found.dataset != present:
        raise InputError(
            f"{records.path_of(found, folder).name} was measured on other {recipe.dataset} data (sha256 "
            f"{found.dataset['train_sha256'][:12]}, here {present['train_sha256'][:12]}); give another folder"
        )
    record = run(key, config, recipe, profile=profile, seed=seed, root=root, checkpoints=checkpoints, **options)
    records.save(record, folder)
    _checkpoint(checkpoints, key, profile, record.config_hash, seed).unlink(missing_ok=True)
    return record


def dataset(recipe: Recipe, root: Path | None) -> dict:
    """What a record says of the data of a recipe: name, images, checksums."""
    return _dataset(*data(recipe.dataset, recipe.batch_size, recipe.train_images, recipe.size_px, root))


def _dataset(batches: Batches | FolderBatches, valid: Batches | FolderBatches) -> dict:
    return {
        "name": batches.samples.name,
        "train_images": len(batches.samples),
        "test_images": len(valid.samples),
        "train_sha256": batches.samples.checksum,
        "test_sha256": valid.samples.checksum,
    }


def _checkpoint(folder: Path, key: str, profile: str, digest: str, seed: int) -> Path:
    return folder / key / f"{profile}-{digest}-s{seed}.safetensors"


def fresh(recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """The backbone of a recipe with weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(recipe.arch, classes, **({} if recipe.width is None else {"width": recipe.width}))


@lru_cache(maxsize=2)
def data(
    name: str, batch_size: int, train_images: int | None, size_px: int | None, root: Path | None
) -> tuple[Batches | FolderBatches, Batches | FolderBatches]:
    """Training and evaluation batches of a classification set, normalised by the training set's statistics.

    Sets that fit into memory are decoded once; a folder like ImageNet's is decoded while training.
    """
    options = {"size_px": size_px} if size_px is not None and "size_px" in DATASETS[name].options else {}
    samples, test = (load(name, split, root, **options) for split in DATASETS[name].splits[:2])
    if train_images is not None:
        samples = samples.subset(balanced(samples.labels, train_images))
    if isinstance(samples, FolderSamples):
        folder = FolderBatches(samples, batch_size, size_px or 224)
        return folder, replace(folder, samples=test)
    batches = Batches(samples, batch_size, augment=flip_and_shift)
    return batches, replace(batches, samples=test, augment=None, batch_size=500)


def at_size(batches: Batches | FolderBatches, size_px: int) -> Batches | FolderBatches:
    """The same images at another side: bilinear, anti-aliased when smaller."""
    if isinstance(batches, FolderBatches):
        return replace(batches, size_px=size_px)
    square, smooth = (size_px, size_px), {"mode": "bilinear", "antialias": True}
    parts = batches.samples.images.split(500)
    images = [F.interpolate(part.float(), square, **smooth).round().clamp(0, 255).byte() for part in parts]
    return replace(batches, samples=replace(batches.samples, images=torch.cat(images)))


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of the first images of each class, `count` in all, in stored order."""
    if not 0 < count <= len(labels):
        raise InputError(f"train_images is {count}; the data set has {len(labels)}")
    classes = int(labels.max()) + 1
    quota = [count // classes + (c < count % classes) for c in range(classes)]
    picked = [torch.nonzero(labels == c).flatten()[:q] for c, q in enumerate(quota)]
    return torch.cat(picked).sort().values


def _plain(value: Mapping) -> dict:
    """The value as JSON would give it back: tuples become lists."""
    return {
        key: _plain(item) if isinstance(item, Mapping) else list(item) if isinstance(item, tuple) else item
        for key, item in value.items()
    }


# --------------------------------------------------------------- at the paper's own scale: no data, no trained weights


def cost_of(key: str, config: object, arch: str, size: tuple[int, int], classes: int = 1000) -> dict:
    """What a method makes of a network's cost for one image of (height, width) pixels, as plain values.

    MACs are integers and counted as they run; `closed_form` is the same integer from formulas. `ratio` is that of the
    untouched network's `macs_static` to `macs`. Methods with choices add `macs_by_choice`, and those that skip a given
    share of the positions `macs_expected`, with the ratio to it.
    Raises InputError for a network or a size that the method cannot take.
    """
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # the exception says it all
    paper, network, image = method(key), _image_network(arch, classes), example(size)
    model = paper.convert(network, config)
    try:
        static = count(network, image).macs
    except (RuntimeError, AssertionError) as error:  # torch's words for a map smaller than its kernel
        reason = str(error).partition("\n")[0]
        raise InputError(f"size is {size[0]}x{size[1]}, which {arch} cannot take: {reason}") from error
    cost = count(model, image)
    closed = paper.cost(model, size).macs
    assert closed == cost.macs, f"{key} on {arch}: closed form {closed}, counted {cost.macs}"
    choices = {"macs_by_choice": paper.macs_by_choice(model, size)} if hasattr(paper, "macs_by_choice") else {}
    expected = paper.macs_expected(model, size) if hasattr(paper, "macs_expected") else None
    if expected is not None:
        choices |= {"macs_expected": expected, "ratio_expected": latency.macs_ratio(static, expected)}
    return {
        "key": key,
        "arch": arch,
        "size": _side(size),
        "classes": classes,
        "config": _plain(asdict(config)),
        "params": cost.params,
        "macs": cost.macs,
        "macs_static": static,
        "ratio": latency.macs_ratio(static, cost.macs),
        "closed_form": closed,
        "authors_macs": count(model, image, rule="authors").macs,
        "uncounted": list(cost.uncounted),
        **choices,
    }


def describe_latency(config: object, arch: str, size: tuple[int, int], batch: int, threads: int) -> dict:
    """What a latency record is found by, the machine excepted: that stands in its environment."""
    return _plain({"method": asdict(config), "arch": arch, "size": _side(size), "batch": batch, "threads": threads})


def latency_pair(batch: int, key: str, config: dict, arch: str, size: list[int]) -> tuple[nn.Module, Callable, Tensor]:
    """Both sides of a measurement, with random weights: the network, the deployed method, and the example of both."""
    paper, network, images = method(key), _image_network(arch).eval(), example(tuple(size), batch=batch)
    model = paper.convert(network, settings.build(paper.Config, config)).eval()
    return network, paper.deploy(model, images), images


def time_latency(
    key: str, config: object, arch: str, size: tuple[int, int], *, batch: int = 1, threads: int = 1, repeats: int = 20
) -> Record:
    """Time a method against its network in a process of its own; the record, unsaved, at the paper's own scale."""
    began = time.perf_counter()
    cost = cost_of(key, config, arch, size)
    described = describe_latency(config, arch, size, batch, threads)
    arguments = {"key": key, "config": described["method"], "arch": arch, "size": list(size)}
    pair = f"{__name__}:{latency_pair.__name__}"
    measured = latency.in_own_process(pair, arguments, batch=batch, threads=threads, repeats=repeats)
    ratio = cost.get("ratio_expected", cost["ratio"])  # of what is skipped where the method skips
    return Record(
        key=key,
        kind="latency",
        profile="paper",
        config=described,
        config_hash=records.config_hash(described),
        dataset={},
        seed=0,
        metrics=_plain(asdict(measured))
        | {"macs_ratio": ratio, "efficiency": latency.efficiency(measured.speedup, ratio)},
        curve=[],
        environment=records.environment(threads=threads),
        wall_s=round(time.perf_counter() - began, 1),
    )


def _image_network(arch: str, classes: int = 1000) -> nn.Module:
    network = build(arch, classes)
    if any(isinstance(layer, nn.Conv3d) for layer in network.modules()):
        raise InputError(f"arch is {arch}, which takes clips; allowed: networks of images, such as resnet50")
    return network


def _side(size: tuple[int, int]) -> int | list[int]:
    """As everywhere, one number is a square."""
    return size[0] if size[0] == size[1] else list(size)
