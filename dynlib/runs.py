"""One run makes one record: network, method, data and schedule brought together, found again by their hash."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynlib import backbones, records, settings, train
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
from dynlib.errors import InputError
from dynlib.papers import method
from dynlib.paths import PROFILES, RESULTS, RUNS
from dynlib.records import Record
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
    held_out_images: int | None = None  # of the training split; they train nothing, a method chooses on them

    def __post_init__(self):
        """Refuse what no run can use, before any work."""
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
        counts = {"batch_size": self.batch_size, "width": self.width, "train_images": self.train_images}
        counts |= {"size_px": self.size_px, "held_out_images": self.held_out_images}
        counts |= {f"test_sizes_px {size}": size for size in self.test_sizes_px}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it is 1 or more")
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
        return train.Schedule(self.epochs, self.lr, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)


def describe(config: object, recipe: Recipe) -> dict:
    """What a record of this run is found by: the method's settings and the recipe, as plain values."""
    values = asdict(recipe) | {"test_sizes_px": list(recipe.test_sizes_px)}
    if recipe.held_out_images is None:  # as in records from before there were any
        del values["held_out_images"]
    return {"method": asdict(config), "recipe": values}


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
    config_as_json = settings.plain(describe(config, recipe))
    return records.lookup(key, "training", profile, config_as_json, seed, folder)


def seeds(key: str, config: object, recipe: Recipe, *, profile: str, folder: Path = RESULTS) -> list[Record]:
    """The committed records of a configuration, one a seed, in the order of the seeds."""
    digest = records.config_hash(settings.plain(describe(config, recipe)))
    found = [run for run in records.find(key, "training", profile, folder) if run.config_hash == digest]
    return sorted(found, key=lambda run: run.seed)


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

    With `checkpoints` the state is kept there under the run's hash and an interrupted run goes on from it; runs that
    agree in the first phases of their training share these. MACs and parameters are those of the whole network, of a
    detector those of its backbone and pyramid. Raises InputError for a task that the method does not train for.
    """
    began = time.perf_counter()
    hardware = hardware or train.Hardware()
    paper, task = method(key), recipe.task
    if task.name == "detection" and hardware.precision != "32-true":  # Fabric would round the boxes with the images
        raise InputError(f"precision is {hardware.precision!r}; allowed for detection: 32-true")
    if task.name not in (able := getattr(paper, "TASKS", ("classification",))):
        what = f"dataset {recipe.dataset} is for {task.name}, which method {key} does not train for"
        raise InputError(f"{what}; allowed: data sets for {', '.join(able)}")
    batches, valid = data_of(recipe, root)
    if getattr(paper, "PIXELS", None) == "unit":
        batches, valid = (replace(part, mean=(0.0,) * 3, std=(1.0,) * 3) for part in (batches, valid))
    described = settings.plain(describe(config, recipe))
    model = fresh(paper, config, recipe, len(batches.samples.classes), seed)
    size = tuple(valid.samples.images.shape[2:]) if isinstance(valid, Batches) else (valid.size_px, valid.size_px)
    cost = paper.cost(*task.counted(model, size))
    curve, phases, shared_s = [], _phases(paper, config), 0.0
    for index, phase in enumerate(phases):
        learning = time.perf_counter()
        other = phase.settings is not None
        trained = fresh(paper, phase.settings, recipe, len(batches.samples.classes), seed) if other else model
        part = train.fit(
            trained,
            batches if phase.augment or isinstance(batches, FolderBatches) else replace(batches, augment=None),
            phase.of(recipe.schedule()),
            seed=seed + 1009 * index,  # every phase sees its own order of the images
            objective=phase.objective,
            valid=valid,
            watch=phase.watch or task.watch,
            groups=phase.groups and phase.groups(trained),
            hardware=hardware,
            checkpoint=checkpoints and _checkpoint(checkpoints, key, profile, _digest(described, phases, index), seed),
            progress=progress,
        )
        # Epochs that a checkpoint had were paid for all the same.
        shared_s += max(0.0, sum(point["seconds"] for point in part) - (time.perf_counter() - learning))
        model = converted(paper, trained, config, seed) if other else model
        curve += [{"phase": phase.name} | point for point in part] if len(phases) > 1 else part
    if recipe.held_out_images is not None and hasattr(paper, "choose"):
        metrics = paper.choose(model, replace(valid, samples=held_out(recipe, root).samples), valid)
    else:
        metrics = task.evaluate(model, valid)
        metrics |= paper.evaluate(model, valid) if hasattr(paper, "evaluate") else {}
    metrics |= {"macs": cost.macs, "params": cost.params}
    metrics |= {"size_px": size[-1] if size[-2] == size[-1] else list(size[-2:])}
    for size in recipe.test_sizes_px:
        metrics[f"top1_at_{size}_px"] = train.evaluate(model, at_size(valid, size))["top1"]
    device = next(model.parameters()).device
    record = Record(
        key=key,
        kind="training",
        profile=profile,
        config=described,
        config_hash=records.config_hash(described),
        dataset=_dataset(batches, valid),
        seed=seed,
        metrics=metrics,
        curve=curve,
        environment=records.environment(
            torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            torch.get_num_threads(),
            None if hardware.precision == "32-true" else hardware.precision,
        ),
        wall_s=round(time.perf_counter() - began + shared_s, 1),
    )
    return record, model


def ensure(key: str, config: object, recipe: Recipe, *, profile: str, seed: int, **options) -> Record:
    """The record of a run: read where it exists, else measured and, outside the smoke profile, saved.

    Smoke results are not evidence and cost seconds: they are measured every time, so a chapter always really trains.
    """
    if profile == "smoke":
        return run(key, config, recipe, profile=profile, seed=seed, **{"checkpoints": None} | options)
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
    return _dataset(*data_of(recipe, root))


def _dataset(batches: Batches | FolderBatches, valid: Batches | FolderBatches) -> dict:
    return {
        "name": batches.samples.name,
        "train_images": len(batches.samples),
        "test_images": len(valid.samples),
        "train_sha256": batches.samples.checksum,
        "test_sha256": valid.samples.checksum,
    }


def _phases(paper: ModuleType, config: object) -> tuple[train.Phase, ...]:
    return paper.phases(config) if hasattr(paper, "phases") else (train.Phase("training"),)


def _digest(described: dict, phases: tuple[train.Phase, ...], index: int) -> str:
    """What the weights at the end of a phase are found by: what they depend on; at the very end, as the record."""
    if index == len(phases) - 1:
        return records.config_hash(described)
    settled, fields, other = described["method"], phases[index].depends_on, phases[index].settings
    if other is not None:
        settled = settings.plain(asdict(other))
    elif fields is not None:
        settled = {name: settled[name] for name in fields}
    return records.config_hash(described | {"method": settled, "past": [phase.name for phase in phases[: index + 1]]})


def _checkpoint(folder: Path, key: str, profile: str, digest: str, seed: int) -> Path:
    return folder / key / f"{profile}-{digest}-s{seed}.safetensors"


def fresh(paper: ModuleType, config: object, recipe: Recipe, classes: int, seed: int) -> nn.Module:
    """The converted network of a recipe with weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return paper.convert(recipe.task.build(recipe.arch, classes, recipe.width), config)


def converted(paper: ModuleType, network: nn.Module, config: object, seed: int) -> nn.Module:
    """The converted form of a trained network; what it has of its own follows from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return paper.convert(network, config)


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
    """`data` as a recipe asks for it."""
    return data(recipe.dataset, recipe.batch_size, recipe.train_images, recipe.size_px, root, recipe.held_out_images)


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
    return {"size_px": _sides(size_px, known.aspect)} if size_px is not None and "size_px" in known.options else {}


def _sides(size_px: int, aspect: float) -> int | tuple[int, int]:
    return size_px if aspect == 1 else (size_px, round(size_px * aspect))


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
