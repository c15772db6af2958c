"""Augmentation in batches equals what a loop over images would do, and repeats with its seed."""

import pytest
import torch
import torch.nn.functional as F

from dynlib.data.augment import draw_crops, flip, flip_and_shift, random_resized_crop, shift

SHAPES = [(40, 3, 6, 6), (40, 3, 7, 9), (40, 3, 4, 6, 8), (40, 1, 5, 5)]


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_rest(shape):
    images = pixels(*shape)
    flipped = flip(images, seeded())
    mirrored = [torch.equal(after, before.flip(-1)) for after, before in zip(flipped, images, strict=True)]
    untouched = [torch.equal(after, before) for after, before in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True)) and 8 < sum(mirrored) < 32


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_is_a_crop_of_the_reflected_image(shape):
    """Each image is found among all (2 p + 1)^2 crops of its padded self, and not always at the same place."""
    images, pad_px = pixels(*shape), 2
    height, width = shape[-2:]
    shifted = shift(images, seeded(), pad_px)
    assert shifted.shape == images.shape and shifted.dtype == torch.uint8
    padded = F.pad(images.flatten(1, -3).float(), (pad_px,) * 4, mode="reflect").to(torch.uint8)
    places = set()
    for after, before in zip(shifted.flatten(1, -3), padded, strict=True):
        found = [
            (y, x)
            for y in range(2 * pad_px + 1)
            for x in range(2 * pad_px + 1)
            if torch.equal(after, before[:, y : y + height, x : x + width])
        ]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 10


@pytest.mark.parametrize("augment", [flip, shift, flip_and_shift, random_resized_crop])
def test_a_seed_repeats_and_another_differs(augment):
    images = pixels(40, 3, 8, 8)
    assert torch.equal(augment(images, seeded(5)), augment(images, seeded(5)))
    assert not torch.equal(augment(images, seeded(5)), augment(images, seeded(6)))


@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
def test_crops_lie_in_the_image_and_cover_the_stated_area(aspect):
    left, top, wide, high = draw_crops(2000, seeded(), (0.25, 0.5), aspect).unbind(1)
    assert left.min() >= 0 and top.min() >= 0 and (left + wide).max() <= 1 + 1e-6 and (top + high).max() <= 1 + 1e-6
    fits = (wide < 1) & (high < 1)
    area, ratio = (wide * high)[fits], (wide / high * aspect)[fits]
    assert 0.2499 < area.min() < 0.26 and 0.49 < area.max() < 0.5001
    assert 0.7499 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.3334


@pytest.mark.parametrize("shape", [(5, 3, 8, 6), (5, 2, 3, 6, 6)])
@pytest.mark.parametrize("size_px", [None, 4])
def test_a_resized_crop_reads_each_pixel_where_a_loop_would(shape, size_px):
    images, area = pixels(*shape), (0.25, 1.0)
    height, width = shape[-2:]
    rows, columns = (height, width) if size_px is None else (size_px, size_px)
    cropped = random_resized_crop(images, seeded(), size_px, area)
    assert cropped.shape == (*shape[:-2], rows, columns) and cropped.dtype == torch.float32

    expected = torch.empty_like(cropped)
    for n, (left, top, wide, high) in enumerate(draw_crops(len(images), seeded(), area, width / height).tolist()):
        for i in range(rows):
            for j in range(columns):
                y = min(max((top + high * (i + 0.5) / rows) * height - 0.5, 0), height - 1)
                x = min(max((left + wide * (j + 0.5) / columns) * width - 0.5, 0), width - 1)
                expected[n, ..., i, j] = sum(
                    images[n, ..., corner_y, corner_x] * (1 - abs(y - corner_y)) * (1 - abs(x - corner_x))
                    for corner_y in {int(y), min(int(y) + 1, height - 1)}
                    for corner_x in {int(x), min(int(x) + 1, width - 1)}
                )
    torch.testing.assert_close(cropped, expected, atol=1e-2, rtol=0)
