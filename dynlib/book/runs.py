"""One run makes one record: network, method, data and schedule brought together, found again by their hash."""

import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from dynlib import settings, train
from dynlib.book import records
from dynlib.book.recipes import Recipe, at_size, data_of, held_out, narrowed, trained, with_octaves
from dynlib.book.records import Record
from dynlib.checkpoints import epochs_done
from dynlib.data import Batches, FolderBatches
from dynlib.errors import InputError
from dynlib.papers import Method, method
from dynlib.paths import RESULTS, RUNS, check_writable
from dynlib.tracing import copied


def describe(config: object, recipe: Recipe) -> dict:
    """What a record of this run is found by: the method's settings and the recipe, as plain values."""
    return {"method": settings.described(config), "recipe": settings.described(recipe)}


def recorded(
    key: str, config: object, recipe: Recipe, *, profile: str, seed: int, folder: Path = RESULTS
) -> Record | None:
    """The committed record of a run, or None where it is still to be made."""
    return records.lookup(key, "training", profile, describe(config, recipe), seed, folder)


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
    if task.name not in (able := paper.TASKS):
        what = f"dataset {recipe.dataset} is for {task.name}, which method {key} does not train for"
        raise InputError(f"{what}; allowed: data sets for {', '.join(able)}")
    batches, valid = data_of(recipe, root)
    if paper.PIXELS == "unit":
        batches, valid = (replace(part, mean=(0.0,) * 3, std=(1.0,) * 3) for part in (batches, valid))
    described, classes = describe(config, recipe), len(batches.samples.classes)
    model = fresh(paper, config, recipe, classes, seed, root)
    size = tuple(valid.samples.images.shape[2:]) if isinstance(valid, Batches) else (valid.size_px, valid.size_px)
    cost = paper.cost(*task.counted(model, size))
    curve, phases, shared_s = [], _phases(paper, config), 0.0
    targets_of = recipe.soften(classes, root, hardware.device)
    for index, phase in enumerate(phases):
        learning = time.perf_counter()
        other = phase.settings is not None
        trained = fresh(paper, phase.settings, recipe, classes, seed, root) if other else model
        part = train.fit(
            trained,
            phase.prepare(trained, _seen_in(phase, batches)),
            phase.of(recipe.schedule()),
            seed=seed + 1009 * index,  # every phase sees its own order of the images
            objective=phase.objective,
            valid=valid,
            watch=phase.watch or task.watch,
            groups=phase.groups and phase.groups(trained),
            targets_of=targets_of,
            hardware=hardware,
            checkpoint=checkpoints and _checkpoint(checkpoints, key, profile, _digest(described, phases, index), seed),
            progress=progress,
        )
        # Epochs that a checkpoint had were paid for all the same.
        shared_s += max(0.0, sum(point["seconds"] for point in part) - (time.perf_counter() - learning))
        model = converted(paper, trained, config, seed) if other else model
        curve += [{"phase": phase.name} | point for point in part] if len(phases) > 1 else part
    if recipe.held_out_images is not None and paper.choose is not None:
        metrics = paper.choose(model, replace(valid, samples=held_out(recipe, root).samples), valid)
    else:
        metrics = task.evaluate(model, valid) | paper.evaluate(model, valid)
    metrics |= {"macs": cost.macs, "params": cost.params}
    metrics |= {"size_px": size[-1] if size[-2] == size[-1] else list(size[-2:])}
    for size in recipe.test_sizes_px:
        metrics[f"top1_at_{size}_px"] = train.evaluate(model, at_size(valid, size))["top1"]
    if recipe.int8:
        metrics |= _deployed(paper, model, batches, valid)
    device = next(model.parameters()).device
    where = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    where |= {"threads": torch.get_num_threads(), "precision": hardware.precision}
    told = {"seed": seed, "dataset": _dataset(batches, valid), "metrics": metrics, "curve": curve}
    wall_s = time.perf_counter() - began + shared_s
    return records.made(key, "training", profile, described, wall_s=wall_s, **told, **where), model


def _deployed(paper: Method, model: nn.Module, batches: Batches, valid: Batches) -> dict[str, float]:
    """Top-1 of the deployed network in float32 and in int8, which 512 training images calibrate as they are."""
    plain = replace(batches, augment=None, batch_size=64).epoch(None)
    calibrate = [images for images, _ in islice(plain, 8)]
    forms = {"float32": None, "int8": calibrate}
    forms = {name: paper.deploy(copied(model).cpu(), calibrate[0], calibrate=of) for name, of in forms.items()}
    return {f"top1_deployed_{name}": train.evaluate(form, valid)["top1"] for name, form in forms.items()}


def ensure(key: str, config: object, recipe: Recipe, *, profile: str, seed: int, **options) -> Record:
    """The record of a run: read where it exists, else measured and, outside the smoke profile, saved.

    Smoke results are not evidence and cost seconds: they are measured every time, so a chapter always really trains.
    """
    if profile == "smoke":
        return fit(key, config, recipe, profile=profile, seed=seed, **{"checkpoints": None} | options)[0]
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
    for place in (folder, checkpoints):
        check_writable(place / key / "record.json")
    present = _dataset(*data_of(recipe, root))
    found = recorded(key, config, recipe, profile=profile, seed=seed, folder=folder)
    if found is not None and found.dataset != present:
        raise InputError(
            f"{records.path_of(found, folder).name} was measured on other {recipe.dataset} data (sha256 "
            f"{found.dataset['train_sha256'][:12]}, here {present['train_sha256'][:12]}); give another folder"
        )
    record, _ = fit(key, config, recipe, profile=profile, seed=seed, root=root, checkpoints=checkpoints, **options)
    records.save(record, folder)
    _checkpoint(checkpoints, key, profile, record.config_hash, seed).unlink(missing_ok=True)
    return record


def _dataset(batches: Batches | FolderBatches, valid: Batches | FolderBatches) -> dict:
    """What a record says of the data: name, images, checksums."""
    return {
        "name": batches.samples.name,
        "train_images": len(batches.samples),
        "test_images": len(valid.samples),
        "train_sha256": batches.samples.checksum,
        "test_sha256": valid.samples.checksum,
    }


def _phases(paper: Method, config: object) -> tuple[train.Phase, ...]:
    return paper.phases(config) or (train.Phase("training"),)


def first_phase(
    key: str, config: object, recipe: Recipe, profile: str, seed: int, checkpoints: Path
) -> tuple[Path, bool]:
    """Where the weights at the end of a run's first phase lie, the same for all runs that share it; and if they do."""
    phases = _phases(method(key), config)
    path = _checkpoint(checkpoints, key, profile, _digest(describe(config, recipe), phases, 0), seed)
    return path, epochs_done(path) >= phases[0].of(recipe.schedule()).epochs


def _digest(described: dict, phases: tuple[train.Phase, ...], index: int) -> str:
    """What the weights at the end of a phase are found by: what they depend on; at the very end, as the record."""
    if index == len(phases) - 1:
        return records.config_hash(described)
    settled, fields, other = described["method"], phases[index].depends_on, phases[index].settings
    if other is not None:
        settled = settings.described(other)
    elif fields is not None:
        settled = {name: settled[name] for name in fields if name in settled}
    return records.config_hash(described | {"method": settled, "past": [phase.name for phase in phases[: index + 1]]})


def _checkpoint(folder: Path, key: str, profile: str, digest: str, seed: int) -> Path:
    return folder / key / f"{profile}-{digest}-s{seed}.safetensors"


def _seen_in(phase: train.Phase, batches: Batches | FolderBatches) -> Batches | FolderBatches:
    """The training batches as a phase sees them; images of a folder are always moved."""
    if not phase.augment and isinstance(batches, Batches):
        batches = replace(batches, augment=None)
    if phase.images == "all":
        return batches
    tenth = torch.arange(len(batches.samples)) % 10 == 9
    kept = tenth if phase.images == "rest" else ~tenth
    return replace(batches, samples=batches.samples.subset(kept.nonzero().flatten()))


def fresh(
    paper: Method, config: object, recipe: Recipe, classes: int, seed: int, root: Path | None = None
) -> nn.Module:
    """The converted network of a recipe: what is not from trained weights follows from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.weights is None or recipe.width is not None:
            network = recipe.task.build(recipe.arch, classes, recipe.width)
        if recipe.weights is not None:
            wide = trained(recipe.weights, classes, root)
            network = wide if recipe.width is None else narrowed(network, wide)
        return paper.convert(with_octaves(network, recipe.octaves), config)


def converted(paper: Method, network: nn.Module, config: object, seed: int) -> nn.Module:
    """The converted form of a trained network; what it has of its own follows from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return paper.convert(network, config)
