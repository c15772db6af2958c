"""Data sets behind one door: `load(name, split)` gives `Samples`, `Batches` makes them food for training.

    samples   Samples, Batches
    boxes     DetectionBatches
    loader    other people's batches, such as a DataLoader's
    scenes    procedural images and clips
    packed    reader of <root>/<name>/<split>.npz
    vision    torchvision's sets: packing the small ones, ImageNet left in its folder
    augment   batched augmentation

What fits into memory is decoded once to uint8; no per-image work is left for the training loop.
"""

from dataclasses import replace
from pathlib import Path

import torch

from dynlib import paths
from dynlib.catalogue import DATASETS, Dataset
from dynlib.data import packed, scenes
from dynlib.data.boxes import DetectionBatches
from dynlib.data.loader import Loader, as_batches
from dynlib.data.samples import IGNORED, Batches, Samples, channel_stats, hold_out, normalise
from dynlib.data.vision import PACKABLE, FolderBatches, FolderSamples, load_folder, pack
from dynlib.errors import InputError


def load(name: str, split: str, root: Path | str | None = None, **options: object) -> Samples | FolderSamples:
    """One split of a data set, decoded into memory; `root` is the folder of data sets (default: data/raw).

    `scenes` and its kin take the options n, size_px and seed; packed sets take `size_px`, one side of a square
    or (height, width), and are resized while decoding. `imagenet` stays on the disk: its FolderSamples are for
    FolderBatches. Void is none of the `classes`. Raises InputError for an unknown name, split or option and for data
    that are missing or damaged.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: allowed are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise InputError(f"split {split!r} of {name}: allowed are {', '.join(dataset.splits)}")
    if unknown := options.keys() - set(dataset.options):
        raise InputError(f"option {min(unknown)!r} of {name}: allowed are {', '.join(dataset.options) or 'none'}")
    if name.startswith("scenes"):
        return scenes.make(split, kind=name.partition("_")[2] or "images", **options)
    root = paths.RAW if root is None else Path(root)
    folder = root / (dataset.folder or name)
    if name == "imagenet":
        return load_folder(folder / split, name)
    if not folder.is_dir():
        first = f"`python -m dynlib data {name} --data-root {root}`" if name in PACKABLE else "scenes, made on the spot"
        raise InputError(f"no data in {folder}: allowed are {first}, or a data root that holds {name}/{split}.npz")
    samples = packed.read(folder / f"{split}.npz", dataset.task, dataset.classes, **options)
    if dataset.ids is not None:
        samples = _among(name, dataset, samples)
    return samples if dataset.void is None else _without(dataset.void, samples)


def _among(name: str, dataset: Dataset, samples: Samples) -> Samples:
    """The samples with the ids that their classes have among all that a network tells apart."""
    classes = [""] * dataset.class_count
    for number, own in zip(dataset.ids, samples.classes, strict=True):
        classes[number] = own
    labels = torch.tensor(dataset.ids)[samples.labels]
    return replace(samples, name=name, labels=labels, classes=tuple(classes))


def _without(void: str, samples: Samples) -> Samples:
    """The samples with void as none of their classes."""
    *classes, last = samples.classes
    if last != void:
        raise InputError(f"the last class of {samples.name}/{samples.split} is {last!r}: allowed is {void!r}")
    return replace(samples, classes=tuple(classes), void=len(classes))
