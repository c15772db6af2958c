"""What every data set becomes: uint8 pixels with their targets, and the batches that training iterates over."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynlib.errors import InputError
from dynlib.settings import check_number

IGNORED = -100  # in batches of masks: a pixel of no class; what torch's cross-entropy leaves out unless told otherwise

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Samples:
    """One split of one data set, decoded and held in memory."""

    name: str
    split: str
    images: Tensor  # uint8 (N, 3, H, W); clips (N, 3, T, H, W)
    labels: Tensor | None  # int64 (N,)
    classes: tuple[str, ...]
    checksum: str  # sha256: of the packed file, or of what made the pixels; records carry it
    masks: Tensor | None = None  # uint8 (N, H, W), class of each pixel
    void: int | None = None  # in masks: of no class
    boxes: Tensor | None = None  # float32 (M, 4): x1 y1 x2 y2 in px
    box_labels: Tensor | None = None  # int64 (M,)
    box_images: Tensor | None = None  # int64 (M,): the image that each box belongs to

    def __len__(self) -> int:
        """Images, or clips."""
        return len(self.images)

    def on(self, device: torch.device | str) -> "Samples":
        """The same samples with all tensors on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def subset(self, indices: Sequence[int] | Tensor) -> "Samples":
        """The samples at `indices`, in that order, under a checksum of their own; boxes follow their image.

        Raises InputError where an index is outside 0 .. N-1.
        """
        index = torch.as_tensor(indices, dtype=torch.int64)
        outside = index[(index < 0) | (index >= len(self))]
        if len(outside):
            raise InputError(
                f"index {outside[0].item()} into {self.name}/{self.split}: allowed is 0 to {len(self) - 1}"
            )

        every = {"images": self.images, "labels": self.labels, "masks": self.masks}
        picked = {name: values[index] for name, values in every.items() if values is not None}
        if self.boxes is not None:  # one row a box, in the new order
            image, box = torch.nonzero(index[:, None] == self.box_images[None], as_tuple=True)
            picked |= {"boxes": self.boxes[box], "box_labels": self.box_labels[box], "box_images": image}
        checksum = hashlib.sha256(self.checksum.encode() + index.numpy().tobytes()).hexdigest()
        return replace(self, checksum=checksum, **picked)


def hold_out(samples: Samples, count: int, seed: int) -> tuple[Samples, Samples]:
    """The samples without `count` of them, and these, drawn by the seed with equally many of each class.

    What a method chooses once it is trained is chosen on these: never on test images, and not on those that trained.
    Raises InputError where the classes are too small or `count` is no multiple of their number.
    """
    classes = len(samples.classes)
    if count < classes or count % classes:
        raise InputError(f"count is {count}; it is a multiple of the {classes} classes")
    generator = torch.Generator().manual_seed(seed)
    held = []
    for label in range(classes):
        own = (samples.labels == label).nonzero().flatten()
        if len(own) <= count // classes:
            raise InputError(f"count is {count}; class {samples.classes[label]} has {len(own)} images")
        held.append(own[torch.randperm(len(own), generator=generator)[: count // classes]])
    held = torch.cat(held).sort().values
    kept = torch.ones(len(samples), dtype=torch.bool)
    kept[held] = False
    return samples.subset(kept.nonzero().flatten()), samples.subset(held)


def channel_stats(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 `images` (N, 3, ...), on the scale 0 .. 1.

    Exact: both follow from the 256-bin histogram of a channel.
    """
    value = torch.arange(256, dtype=torch.float64) / 255
    share = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = share / share.sum(1, keepdim=True, dtype=torch.float64)  # (3, 256)
    mean = share @ value
    variance = (share * (value - mean[:, None]) ** 2).sum(1)
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


@dataclass(frozen=True)
class Batches:
    """Normalised batches of equally sized images with their labels, or with their masks where there are no labels.

    Void pixels of a mask are IGNORED. Boxes are for DetectionBatches.
    `mean` and `std` (a number a channel, pixels on the scale 0 .. 1) are computed from these samples unless given.
    Evaluation takes them from training: `replace(train, samples=val, augment=None)`. Raises InputError for samples
    without targets.
    """

    samples: Samples
    batch_size: int
    augment: Augment | None = None  # uint8 (N, C, [T,] H, W) -> the same, or float32 on the same scale 0 .. 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be batched; settle mean and std."""
        where = f"{self.samples.name}/{self.samples.split}"
        check_number(self, "batch_size", 1, whole=True)
        self._check_targets(where)
        if self.mean is None or self.std is None:
            mean, std = channel_stats(self.samples.images)
            object.__setattr__(self, "mean", self.mean or mean)
            object.__setattr__(self, "std", self.std or std)

    def _check_targets(self, where: str) -> None:
        if self.samples.labels is None and self.samples.masks is None:
            raise InputError(f"{where} has neither labels nor masks: a batch needs one of them")

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.samples) // self.batch_size)

    def on(self, device: torch.device | str) -> "Batches":
        """The same batches with all samples kept on a device."""
        return replace(self, samples=self.samples.on(device))

    def order(self, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """Indices of the samples of each batch, where the images are; in a drawn order where there is a generator."""
        count = len(self.samples)
        every = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        return every.to(self.samples.images.device).tensor_split(len(self))

    def epoch(
        self, generator: torch.Generator | None, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once: float32 images (n, 3, [T,] H, W), channels last, and int64 labels (n,) or masks (n, H, W).

        With a generator in a drawn order and augmented; with None in the order of the samples and as they are. Batches
        are as equal as they can be, n <= batch_size, so that no epoch ends on a batch of one that batch norm refuses.
        """
        targets = self.samples.masks if self.samples.labels is None else self.samples.labels
        for index in self.order(generator):
            images, target = self.samples.images[index].to(device), targets[index].to(device)
            if generator is not None and self.augment is not None:
                images, target = self._augmented(images, target, generator)
            target = target.long()
            if targets is self.samples.masks and self.samples.void is not None:
                target = target.masked_fill(target == self.samples.void, IGNORED)
            yield normalise(images, self.mean, self.std), target

    def _augmented(self, images: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if target.ndim == 1:
            return self.augment(images, generator), target
        moved = self.augment(torch.cat([images, target[:, None]], 1), generator)  # the mask travels as one more channel
        if moved.dtype != torch.uint8:
            raise InputError("augment blends pixels: with masks allowed is what moves them whole, as flip and shift do")
        return moved[:, :-1], moved[:, -1]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(images / 255 - mean) / std a channel, float32 in channels-last memory, from (N, 3, [T,] H, W) on 0 .. 255."""
    layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    shape = (1, -1) + (1,) * (images.ndim - 2)
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device).view(shape)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(shape)
    return torch.addcmul(shift, images.to(torch.float32, memory_format=layout), scale)
