"""Batches for detectors: images with their boxes, in the form that torchvision's detectors take."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dynlib.data.samples import Batches, normalise
from dynlib.errors import InputError


@dataclass(frozen=True)
class DetectionBatches(Batches):
    """Normalised batches of equally sized images with their boxes.

    `augment` takes images, the boxes of each and a generator, and moves both. Raises InputError as Batches does.
    """

    augment: Callable[[Tensor, list[Tensor], torch.Generator], tuple[Tensor, list[Tensor]]] | None = None

    def _check_targets(self, where: str) -> None:
        if self.samples.boxes is None:
            raise InputError(f"{where} has no boxes: a batch for a detector needs them")

    def epoch(
        self, generator: torch.Generator | None, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
        """Every sample once: float32 images (n, 3, H, W), channels last, and of each image its boxes and labels.

        `boxes` (M, 4) are float32, x1 y1 x2 y2 in px; `labels` (M,) int64 count from 1, because to a detector 0 is
        background. Order, augmentation and sizes of the batches are as in `Batches.epoch`.
        """
        samples = self.samples
        for index in self.order(generator):
            images = samples.images[index].to(device)
            rows = [samples.box_images == image for image in index]
            boxes = [samples.boxes[row].to(device) for row in rows]
            labels = [samples.box_labels[row].to(device) + 1 for row in rows]
            if generator is not None and self.augment is not None:
                images, boxes = self.augment(images, boxes, generator)
            targets = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]
            yield normalise(images, self.mean, self.std), targets
