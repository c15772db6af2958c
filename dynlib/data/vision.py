"""torchvision's data sets: CIFAR and Imagenette packed as ours are, ImageNet-like folders decoded while training."""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dynlib.data import augment
from dynlib.data.packed import rgb
from dynlib.data.samples import normalise
from dynlib.errors import InputError
from dynlib.settings import check_number

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision's weights were trained
CENTRE_CROP = 0.875  # of the shorter side at evaluation: 224 of 256 (He et al. 2016, Sec. 3.4, Krizhevsky et al. 2012)

Files = tuple[list[bytes], list[int], list[str]]  # encoded images, label of each, class names


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _cifar(kind: str, folder: Path, split: str, download: bool) -> Files:
    data = getattr(torchvision.datasets, kind)(folder, train=split == "train", download=download)
    return [_png(pixels) for pixels in data.data], data.targets, data.classes


def _imagenette(folder: Path, split: str, download: bool) -> Files:
    data = torchvision.datasets.Imagenette(
        folder, split, size="320px", download=download, loader=lambda path: Path(path).read_bytes()
    )
    files, labels = zip(*data, strict=True)
    return list(files), list(labels), [names[0] for names in data.classes]


PACKABLE: dict[str, tuple[Callable[[Path, str, bool], Files], tuple[str, ...], str]] = {
    "cifar10": (partial(_cifar, "CIFAR10"), ("train", "test"), "torchvision.datasets.CIFAR10"),
    "cifar100": (partial(_cifar, "CIFAR100"), ("train", "test"), "torchvision.datasets.CIFAR100"),
    "imagenette": (_imagenette, ("train", "val"), "torchvision.datasets.Imagenette, 320 px"),
}


def pack(name: str, root: Path | str, download: bool = True) -> Path:
    """Download a data set by torchvision into <root>/torchvision/<name>, then pack it into <root>/<name>; that folder.

    CIFAR is packed as lossless PNG, Imagenette as its own JPEG files. Both folders appear whole or not at all. With
    download off, what torchvision left in <root>/torchvision/<name> is packed. Raises InputError for a name that cannot
    be packed, a folder that is there already, and data that cannot be had.
    """
    if name not in PACKABLE:
        raise InputError(f"data set {name!r} cannot be packed: allowed are {', '.join(PACKABLE)}")
    make, splits, source = PACKABLE[name]
    original, folder = Path(root) / "torchvision" / name, Path(root) / name
    if folder.exists():
        raise InputError(f"{folder} is there already: remove it to pack {name} anew")
    if not original.is_dir() and not download:
        raise InputError(f"no folder {original}: allowed is a folder where torchvision put {name}, or download")
    try:
        if original.is_dir():
            made = {split: make(original, split, False) for split in splits}
        else:
            begun = _empty(original)
            made = {split: make(begun, split, True) for split in splits}
            begun.rename(original)
    except (OSError, RuntimeError) as error:  # no network, no space; torchvision's checksums
        raise InputError(f"{name} cannot be had from {original}: {error}".replace("\n", " ")) from error

    begun = _empty(folder)
    rows, checksums = [], []
    for split, (files, labels, classes) in made.items():
        path = begun / f"{split}.npz"
        offset = np.cumsum([0, *map(len, files)], dtype=np.int64)
        data = np.frombuffer(b"".join(files), np.uint8)
        np.savez(path, data=data, offset=offset, label=np.array(labels, np.int32), class_name=np.array(classes))
        content = path.read_bytes()
        rows.append(f"| `{path.name}` | {len(content):,} | {len(files):,} images |")
        checksums.append(f"{hashlib.sha256(content).hexdigest()}  {path.name}")
    lines = [
        f"# {name}, {len(classes)} classes",
        *("", f"Source: {source} of torchvision {torchvision.__version__}."),
        *("", "| file | bytes | content |", "|---|---|---|", *rows),
        *("", "Keys: `data`, `offset`, `label`, `class_name`; image i is the file `data[offset[i]:offset[i + 1]]`."),
        *("", "## sha256", "", "```", *checksums, "```", ""),
    ]
    (begun / "README.md").write_text("\n".join(lines), encoding="utf-8")
    begun.rename(folder)
    return folder


def _empty(folder: Path) -> Path:
    """A new folder beside `folder`, under the name of unfinished work."""
    begun = folder.with_name(folder.name + ".part")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    return begun


@dataclass(frozen=True)
class FolderSamples:
    """One split of an image folder, <split>/<class>/<file>, left on the disk; takes the place of Samples."""

    name: str
    split: str
    files: tuple[Path, ...]
    labels: Tensor  # int64 (N,)
    classes: tuple[str, ...]  # folder names, sorted
    checksum: str  # sha256 of the names and sizes of the files: reading ImageNet whole would take too long

    def __len__(self) -> int:
        """Images."""
        return len(self.files)

    def subset(self, indices: Sequence[int] | Tensor) -> "FolderSamples":
        """The images at `indices`, in that order, under a checksum of their own."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        checksum = hashlib.sha256(self.checksum.encode() + index.numpy().tobytes()).hexdigest()
        files = tuple(self.files[place] for place in index.tolist())
        return replace(self, files=files, labels=self.labels[index], checksum=checksum)


def load_folder(folder: Path | str, name: str) -> FolderSamples:
    """The images under <folder>/<class>/; `folder` is named after its split. Raises InputError where there are none."""
    folder = Path(folder)
    try:
        found = torchvision.datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise InputError(f"no images in {folder}: allowed is a folder of class folders, each with images") from error
    files = tuple(Path(file) for file, _ in found.samples)
    listing = "".join(f"{file.relative_to(folder)} {file.stat().st_size}\n" for file in files)
    checksum = hashlib.sha256(listing.encode()).hexdigest()
    return FolderSamples(name, folder.name, files, torch.tensor(found.targets), tuple(found.classes), checksum)


@dataclass(frozen=True)
class FolderBatches:
    """Batches of a folder's images, decoded by worker processes as they are needed; the interface of Batches.

    Training (a generator is given) takes a random crop, resized, mirrored or not; evaluation takes the centre crop.
    """

    samples: FolderSamples
    batch_size: int
    size_px: int = 224
    workers: int = 4  # 0 decodes in this process
    area: tuple[float, float] = (0.08, 1.0)  # of a training crop, share of the image (Szegedy et al. 2015, Sec. 6)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for field, least in (("batch_size", 1), ("size_px", 1), ("workers", 0)):
            check_number(self, field, least, whole=True)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.samples) // self.batch_size)

    def epoch(
        self, generator: torch.Generator | None, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As Batches.epoch; the same generator gives the same batches, whatever the number of workers."""
        seed = None if generator is None else int(torch.randint(2**62, (), generator=generator))
        count = len(self.samples)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        loader = DataLoader(
            _Decoded(self.samples, self.size_px, self.area, seed),
            batch_sampler=[index.tolist() for index in order.tensor_split(len(self))],
            num_workers=self.workers,
            generator=torch.Generator(),  # its own: the loader must not draw from the global one
        )
        for images, labels in loader:
            yield normalise(images.to(device), self.mean, self.std), labels.to(device)


class _Decoded(Dataset):
    """Image and label of one file; draws depend on the epoch's seed and the file only, not on who decodes it."""

    def __init__(self, samples: FolderSamples, size_px: int, area: tuple[float, float], seed: int | None) -> None:
        self.samples, self.size_px, self.area, self.seed = samples, size_px, area, seed

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        file = self.samples.files[index]
        try:
            image = rgb(file)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{file} cannot be decoded ({error}): allowed are whole image files") from error
        height, width = image.shape[1:]
        if self.seed is None:
            side = CENTRE_CROP * min(height, width)
            crop = torch.tensor([(1 - side / width) / 2, (1 - side / height) / 2, side / width, side / height])
            mirrored = False
        else:
            generator = torch.Generator().manual_seed(self.seed + index)
            crop = augment.draw_crops(1, generator, self.area, width / height)[0]
            mirrored = bool(torch.rand((), generator=generator) < 0.5)
        left, top, wide, high = (crop * torch.tensor([width, height, width, height])).round().int().tolist()
        image = image[None, :, top : top + max(high, 1), left : left + max(wide, 1)]
        image = F.interpolate(image, (self.size_px, self.size_px), mode="bilinear", antialias=True)[0]
        return image.flip(-1) if mirrored else image, self.samples.labels[index]
