"""Augmentation of whole batches where they lie (CPU or GPU): no Python work an image.

Each function takes images (N, C, [T,] H, W), uint8 or float32 on 0 .. 255. Every draw is from the given generator, on
its own device, so that one seed gives the same batch on a CPU and on a GPU. All frames of a clip move together.
"""

import torch
from torch import Tensor


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror left and right, each image with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator, device=generator.device) < 0.5
    return torch.where(_per_image(mirrored, images), images.flip(-1), images)


def shift(images: Tensor, generator: torch.Generator, pad_px: int = 4) -> Tensor:
    """Pad by reflection and crop the original size at a drawn place: up to `pad_px` either way.

    He et al. 2016, Sec. 4.2, pad 4 zeros; with reflection every pixel stays one of the image, so masks may travel too.
    """
    height, width = images.shape[-2:]
    offset = torch.randint(-pad_px, pad_px + 1, (2, len(images), 1), generator=generator, device=generator.device)
    offset = offset.to(images.device)
    rows = _reflect(torch.arange(height, device=images.device) + offset[0], height)  # (N, H)
    columns = _reflect(torch.arange(width, device=images.device) + offset[1], width)  # (N, W)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images[image, ..., rows[:, :, None], columns[:, None, :]]  # (N, H, W, C[, T])
    return moved.movedim((1, 2), (-2, -1))


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """The usual recipe for small images (He et al. 2016, Sec. 4.2)."""
    return flip(shift(images, generator), generator)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold positions outside 0 .. size-1 back inside, the border pixel not repeated."""
    index = index.abs() % max(2 * size - 2, 1)
    return torch.minimum(index, (2 * size - 2 - index).abs())


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """(N,) values on the device of the images, shaped to meet them."""
    return values.to(images.device).view(-1, *[1] * (images.ndim - 1))
