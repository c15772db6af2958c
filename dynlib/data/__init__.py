"""Data sets behind one door: `load(name, split)` gives `Samples`, `Batches` makes them food for training.

    samples   Samples, Batches
    packed    reader of <root>/<name>/<split>.npz
    augment   batched augmentation

Everything is decoded once to uint8; no per-image work is left for the training loop.
"""

from dataclasses import dataclass
from pathlib import Path

from dynlib import paths
from dynlib.data import packed
from dynlib.data.samples import Batches, Samples, channel_stats, normalise
from dynlib.errors import InputError

__all__ = ["DATASETS", "Batches", "Dataset", "Samples", "channel_stats", "load", "normalise"]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """What is known about a data set without opening it."""

    splits: tuple[str, ...]  # the first trains, the second evaluates
    task: str  # classification, segmentation or detection
    class_count: int
    description: str
    classes: tuple[str, ...] | None = None  # where the packed file names none


DATASETS = {
    "cifar10": Dataset(
        ("train", "test", "train_lossless_png", "test_lossless_png"),
        "classification",
        10,
        "small photographs of animals and vehicles, 32 px",
        CIFAR10,
    ),
    "imagenette224": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, 224 px"),
    "tiny_imagenet100": Dataset(("train", "val"), "classification", 100, "100 Tiny ImageNet classes, 64 px"),
    "camvid": Dataset(("train", "val"), "segmentation", 12, "road scenes with masks, 480x360 px, class 11 is void"),
    "bccd": Dataset(("train", "val"), "detection", 3, "blood cells with boxes, 640x480 px"),
    "coco256": Dataset(("train", "val"), "detection", 80, "a few COCO 2017 images with boxes, up to 448 px"),
}


def load(name: str, split: str, root: Path | str | None = None, **options: object) -> Samples:
    """One split of a data set, decoded into memory; `root` is the folder of packed sets (default: data/raw).

    Packed sets take the option `size_px`, one side of a square or (height, width): resized while decoding.
    Raises InputError for an unknown name, split or option and for data that are missing or damaged.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: allowed are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise InputError(f"split {split!r} of {name}: allowed are {', '.join(dataset.splits)}")
    if unknown := options.keys() - {"size_px"}:
        raise InputError(f"option {min(unknown)!r} of {name}: allowed is size_px")
    folder = (paths.RAW if root is None else Path(root)) / name
    if not folder.is_dir():
        raise InputError(
            f"no data in {folder}: `python -m dynlib data {name} --data-root DIR` downloads and packs it there, "
            f"or name a --data-root that holds {name}/{split}.npz"
        )
    return packed.read(folder / f"{split}.npz", dataset.classes, **options)
