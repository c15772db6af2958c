"""Batches: every sample once an epoch, normalised, in channels-last memory, and the same for the same seed."""

from dataclasses import replace

import pytest
import torch

from dynlib.data import Batches, Samples, channel_stats, hold_out
from dynlib.data.augment import flip, flip_and_shift, random_resized_crop
from dynlib.errors import InputError


def samples(count: int = 10, **changes: object) -> Samples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 6, 8), dtype=torch.uint8, generator=generator)
    made = Samples("toy", "train", images, torch.arange(count) % 4, ("a", "b", "c", "d"), "0" * 64)
    return replace(made, **changes)


def numbered(count: int) -> Samples:
    """Every image filled with its own index."""
    return samples(count, images=torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 6, 8))


def test_channel_statistics_equal_those_of_the_float_pixels():
    pixels = samples().images.double() / 255
    mean, std = channel_stats(samples().images)
    torch.testing.assert_close(torch.tensor(mean).double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(std).double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_a_batch_is_normalised_float_in_channels_last_memory():
    batches = Batches(samples(), 10)
    ((images, labels),) = batches.epoch(None)
    assert images.dtype == torch.float32 and images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_without_a_generator_samples_come_in_order_and_as_they_are():
    batches = Batches(numbered(9), 4, augment=lambda images, generator: images * 0, mean=(0, 0, 0), std=(1, 1, 1))
    seen = torch.cat([images[:, 0, 0, 0] for images, _ in batches.epoch(None)])
    torch.testing.assert_close(seen * 255, torch.arange(9.0))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(9, 4, [3, 3, 3]), (9, 8, [5, 4]), (3, 5, [3]), (8, 4, [4, 4])]
)
def test_batches_are_as_equal_as_they_can_be(count, batch_size, sizes):
    batches = Batches(samples(count), batch_size)
    assert [len(labels) for _, labels in batches.epoch(None)] == sizes and len(batches) == len(sizes)


def test_a_seed_gives_one_order_and_an_epoch_holds_every_sample_once():
    batches = Batches(numbered(50), 7, mean=(0, 0, 0), std=(1, 1, 1))

    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [round(value) for images, _ in batches.epoch(generator) for value in (images[:, 0, 0, 0] * 255).tolist()]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(50)) != order(1)


def test_augmentation_repeats_with_its_seed_and_leaves_the_global_generator_alone():
    batches = Batches(samples(), 4, flip_and_shift)
    state = torch.get_rng_state()
    first, second = ([images for images, _ in batches.epoch(torch.Generator().manual_seed(3))] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_evaluation_keeps_the_statistics_of_training():
    train = Batches(samples(), 4, flip)
    val = replace(train, samples=samples(4), augment=None)
    assert (val.mean, val.std, len(val)) == (train.mean, train.std, 1)


def test_masks_are_the_target_without_labels_and_move_with_their_images():
    images = samples(20).images
    both = samples(20, images=images, labels=None, masks=images[:, 0])
    batches = Batches(both, 8, flip_and_shift, mean=(0, 0, 0), std=(1, 1, 1))
    for pixels, masks in batches.epoch(torch.Generator().manual_seed(0)):
        assert masks.dtype == torch.int64
        torch.testing.assert_close(pixels[:, 0] * 255, masks.float())


def test_clips_are_batched_in_channels_last_memory():
    clips = torch.randint(256, (4, 3, 5, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(samples(4, images=clips), 2, flip_and_shift)
    for pixels, _ in batches.epoch(torch.Generator().manual_seed(0)):
        assert pixels.shape == (2, 3, 5, 6, 8) and pixels.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_cannot_be_batched_is_refused():
    with pytest.raises(InputError, match="batch_size is 0"):
        Batches(samples(), 0)
    with pytest.raises(InputError, match="toy/train has neither labels nor masks"):
        Batches(samples(labels=None), 1)
    blended = Batches(samples(labels=None, masks=samples().images[:, 0]), 2, random_resized_crop)
    with pytest.raises(InputError, match="augment blends pixels"):
        next(blended.epoch(torch.Generator().manual_seed(0)))


def test_held_out_samples_are_balanced_disjoint_and_follow_the_seed():
    labels = torch.arange(30) % 3
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1).expand(30, 3, 1, 1)
    samples = Samples("toy", "train", images, labels, ("a", "b", "c"), "none")
    rest, held = hold_out(samples, 12, seed=1)
    assert held.labels.bincount().tolist() == [4, 4, 4]
    together = torch.cat([rest.images, held.images])[:, 0, 0, 0]
    assert together.sort().values.tolist() == list(range(30))
    assert hold_out(samples, 12, seed=1)[1].checksum == held.checksum != hold_out(samples, 12, seed=2)[1].checksum
    for count in (0, 10, 30):
        with pytest.raises(InputError, match=f"count is {count}"):
            hold_out(samples, count, seed=1)
