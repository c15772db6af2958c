"""Augmentation of whole batches where they lie (CPU or GPU): no Python work an image.

Each function takes images (N, C, [T,] H, W), uint8 or float32 on 0 .. 255. Every draw is from the given generator, on
its own device, so that one seed gives the same batch on a CPU and on a GPU. All frames of a clip move together.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror left and right, each image with probability 1/2."""
    return _mirror(images, _half(images, generator))


def flip_with_boxes(images: Tensor, boxes: list[Tensor], generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """`flip`, and the boxes (M, 4) of each image, x1 y1 x2 y2 in px, go with it."""
    mirrored, width = _half(images, generator), images.shape[-1]
    swapped = [torch.stack([width - x2, y1, width - x1, y2], 1) for x1, y1, x2, y2 in (box.unbind(1) for box in boxes)]
    chosen = [new if moved else old for moved, new, old in zip(mirrored.tolist(), swapped, boxes, strict=True)]
    return _mirror(images, mirrored), chosen


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


def flip_and_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """The usual recipe for photographs: things come at every place and scale (Szegedy et al. 2015, Sec. 6)."""
    return flip(random_resized_crop(images, generator), generator)


def draw_crops(
    count: int,
    generator: torch.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: float = 1.0,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Crops of images whose width / height is `aspect`: (count, 4), left, top, width, height as shares of the image.

    Area uniform, ratio of width to height log-uniform (Szegedy et al. 2015, Sec. 6); a side too long for the image is
    cut to it, so nothing is drawn again.
    """
    draw = torch.rand(4, count, generator=generator, device=generator.device)
    share = area[0] + (area[1] - area[0]) * draw[0]
    ratio_px = torch.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * draw[1])
    width = (share * ratio_px / aspect).sqrt().clamp(max=1)
    height = (share * aspect / ratio_px).sqrt().clamp(max=1)
    return torch.stack([draw[2] * (1 - width), draw[3] * (1 - height), width, height], 1)


def random_resized_crop(
    images: Tensor, generator: torch.Generator, size_px: int | None = None, area: tuple[float, float] = (0.25, 1.0)
) -> Tensor:
    """A crop of each image, resized bilinearly to (H, W) or a square of `size_px`: float32 on 0 .. 255.

    No low-pass filter comes first: fit for a change of scale up to about 2. Pixels blend, so masks cannot travel along.
    """
    height, width = images.shape[-2:]
    size = (height, width) if size_px is None else (size_px, size_px)
    left, top, wide, high = draw_crops(len(images), generator, area, width / height).to(images.device).unbind(1)
    zero = torch.zeros_like(left)
    # from the crop's coordinates to the image's, both -1 .. 1
    theta = torch.stack([wide, zero, 2 * left + wide - 1, zero, high, 2 * top + high - 1], 1).view(-1, 2, 3)
    flat = images.flatten(1, -3).float()  # frames of a clip as channels
    grid = F.affine_grid(theta, [*flat.shape[:2], *size], align_corners=False)
    cropped = F.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cropped.view(*images.shape[:-2], *size)


def _half(images: Tensor, generator: torch.Generator) -> Tensor:
    """(N,): each image or not, with probability 1/2."""
    return torch.rand(len(images), generator=generator, device=generator.device) < 0.5


def _mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    chosen = mirrored.to(images.device).view(-1, *[1] * (images.ndim - 1))  # (N, 1, ..)
    return torch.where(chosen, images.flip(-1), images)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold positions outside 0 .. size-1 back inside, the border pixel not repeated."""
    index = index.abs() % max(2 * size - 2, 1)
    return torch.minimum(index, (2 * size - 2 - index).abs())
