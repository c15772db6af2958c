"""The data sets by name, and what is known of them unopened. No torch, so that they can be listed at once."""

from dataclasses import dataclass
from functools import partial

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """What is known about a data set without opening it."""

    splits: tuple[str, ...]  # the first trains, the second evaluates
    task: str  # classification, segmentation or detection
    class_count: int  # that a network tells apart: void is none of them, nor is what surrounds boxes
    description: str
    classes: tuple[str, ...] | None = None  # where the packed file names none
    options: tuple[str, ...] = ("size_px",)  # that load takes
    augment: str = "flip_and_crop"  # how training images are moved: a function of data/augment.py
    clips: bool = False  # of several frames; the motion is the class, so that a mirrored one belongs to another
    void: str | None = None  # the last class of the masks, whose pixels are neither learned nor scored
    folder: str | None = None  # of its files where that is another set's; None: of its own name
    ids: tuple[int, ...] | None = None  # of its classes among `class_count` others that a network knows
    aspect: float = 1.0  # width by height, where a side in px stands for the shorter one and not for a square


_scenes = partial(Dataset, ("train", "val"), options=("n", "size_px", "seed"))

DATASETS = {
    "scenes": _scenes(
        "classification",
        10,
        "made procedurally: outlines and fine textures with masks and boxes",
        augment="flip_and_shift",
    ),
    "scenes_clips": _scenes(
        "classification", 8, "clips of such scenes, 8 frames; the motion is the class", augment="shift", clips=True
    ),
    "scenes_masks": _scenes(
        "segmentation", 11, "such scenes with the class of each pixel, background included", augment="flip_and_shift"
    ),
    "scenes_boxes": _scenes("detection", 10, "such scenes with a box around each object", augment="flip_with_boxes"),
    "cifar10": Dataset(
        ("train", "test", "train_lossless_png", "test_lossless_png"),
        "classification",
        10,
        "small photographs of animals and vehicles, 32 px",
        CIFAR10,
        augment="flip_and_shift",
    ),
    "cifar100": Dataset(
        ("train", "test"),
        "classification",
        100,
        "small photographs of 100 kinds of things, 32 px",
        augment="flip_and_shift",
    ),
    "imagenette": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, shorter side 320 px"),
    "imagenette128": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, whole, 128 px"),
    "imagenette224": Dataset(("train", "val"), "classification", 10, "ten easy ImageNet classes, 224 px"),
    "imagenette224_of_1000": Dataset(
        ("train", "val"),
        "classification",
        1000,
        "the photographs of imagenette224, told apart among ImageNet's 1000 classes",
        folder="imagenette224",
        ids=(0, 217, 482, 491, 497, 566, 569, 571, 574, 701),  # of ILSVRC 2012, in the order of the folders' names
    ),
    "tiny_imagenet100": Dataset(("train", "val"), "classification", 100, "100 Tiny ImageNet classes, 64 px"),
    "imagenet": Dataset(
        ("train", "val"), "classification", 1000, "ILSVRC 2012 as <split>/<wnid>/ folders, decoded lazily", options=()
    ),
    "camvid": Dataset(
        ("train", "val"),
        "segmentation",
        11,
        "road scenes with masks, 480x360 px, 11 classes and void",
        augment="flip_and_shift",
        void="void",
        aspect=4 / 3,
    ),
    "bccd": Dataset(
        ("train", "val"), "detection", 3, "blood cells with boxes, 640x480 px", augment="flip_with_boxes", aspect=4 / 3
    ),
    "coco256": Dataset(
        ("train", "val"), "detection", 80, "a few COCO 2017 images with boxes, up to 448 px", augment="flip_with_boxes"
    ),
}
