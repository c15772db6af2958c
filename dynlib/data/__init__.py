"""Data sets behind one door: `load(name, split)` gives `Samples`, `Batches` makes them food for training.

    samples   Samples, Batches
    scenes    procedural images and clips
    packed    reader of <root>/<name>/<split>.npz
    vision    torchvision's sets: packing the small ones, ImageNet left in its folder
    augment   batched augmentation

What fits into memory is decoded once to uint8; no per-image work is left for the training loop.
"""

from dataclasses import dataclass
from pathlib import Path

from dynlib import paths
from dynlib.data import packed
from dynlib.data.samples import Batches, Samples, channel_stats, normalise
from dynlib.data.scenes import scenes
from dynlib.data.vision import PACKABLE, FolderBatches, FolderSamples, load_folder, pack
from dynlib.errors import InputError

__all__ = [
    "DATASETS",
    "Batches",
    "Dataset",
    "FolderBatches",
    "FolderSamples",
    "Samples",
    "channel_stats",
    "load",
    "load_folder",
    "normalise",
    "pack",
]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """What is known about a data set without opening it."""

    splits: tuple[str, ...]  # the first trains, the second evaluates
    task: str  # classification, segmentation or detection
    class_count: int
    description: str
    classes: tuple[str, ...] | None = None  # where the packed file names none
    options: tuple[str, ...] = ("size_px",)  # that load takes


DATASETS = {
    "scenes": Dataset(
        ("train", "val"),
        "classification",
        10,
        "made procedurally: outlines and fine textures with masks and boxes, or clips of 8 motions",
        options=("n", "size_px", "seed", "kind"),
    ),
    "cifar10": Dataset(
        ("train", "test", "train_lossless_png", "test_lossless_png"),
        "classification",
        10,
        "small photographs of animals and vehicles, 32 px",
        CIFAR10,
    ),
    "cifar100": Dataset(("train", "test"), "classification", 100, "small photographs of 100 kinds of things, 32 px"),
    "imagenette": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, shorter side 320 px"),
    "imagenette224": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, 224 px"),
    "tiny_imagenet100": Dataset(("train", "val"), "classification", 100, "100 Tiny ImageNet classes, 64 px"),
    "imagenet": Dataset(
        ("train", "val"), "classification", 1000, "ILSVRC 2012 as <split>/<wnid>/ folders, decoded lazily", options=()
    ),
    "camvid": Dataset(("train", "val"), "segmentation", 12, "road scenes with masks, 480x360 px, class 11 is void"),
    "bccd": Dataset(("train", "val"), "detection", 3, "blood cells with boxes, 640x480 px"),
    "coco256": Dataset(("train", "val"), "detection", 80, "a few COCO 2017 images with boxes, up to 448 px"),
}


def load(name: str, split: str, root: Path | str | None = None, **options: object) -> Samples | FolderSamples:
    """One split of a data set, decoded into memory; `root` is the folder of data sets (default: data/raw).

    `scenes` takes the options n, size_px, seed and kind ("images" or "clips"); packed sets take `size_px`, one side of
    a square or (height, width), and are resized while decoding. `imagenet` stays on the disk: its FolderSamples are for
    FolderBatches. Raises InputError for an unknown name, split or option and for data that are missing or damaged.
    """
    if name not in DATASETS:
        raise InputError(f"data set {name!r}: allowed are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise InputError(f"split {split!r} of {name}: allowed are {', '.join(dataset.splits)}")
    if unknown := options.keys() - set(dataset.options):
        raise InputError(f"option {min(unknown)!r} of {name}: allowed are {', '.join(dataset.options) or 'none'}")
    if name == "scenes":
        return scenes(split, **options)
    root = paths.RAW if root is None else Path(root)
    folder = root / name
    if name == "imagenet":
        return load_folder(folder / split, name)
    if not folder.is_dir():
        first = f"`python -m dynlib data {name} --data-root {root}`" if name in PACKABLE else "scenes, made on the spot"
        raise InputError(f"no data in {folder}: allowed are {first}, or a data root that holds {name}/{split}.npz")
    return packed.read(folder / f"{split}.npz", dataset.task, dataset.classes, **options)
