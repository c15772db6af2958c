"""Where the right resolution is known, the predictor finds it: the proof that the whole method works."""

import pytest
import torch

from dynlib.book.demos import drnet_known as known
from dynlib.papers.drnet import policies as controls
from dynlib.papers.drnet.layers import resize


@pytest.fixture(scope="module")
def learned():
    """What a trained network says of stripes it has not seen, and which of these are fine."""
    seen, held_out, fine = known.trial(seed=0)
    assert len(held_out) == len(fine) == len(seen.labels)
    return seen, fine


def test_fine_stripes_are_gone_at_half_the_side_and_coarse_ones_are_not():
    samples, fine = known.stripes(64, seed=3)
    assert samples.labels.bincount().tolist() == [32, 32] and fine.sum() == 32
    assert samples.labels[fine].bincount().tolist() == [16, 16]  # the kind does not give the class away
    half = resize(samples.images.float(), (16, 16), antialias=False).mean(1)
    across, down = half.mean(2).std(1), half.mean(1).std(1)  # contrast between rows, and between columns
    assert (across - down)[fine].abs().max() < 8 < 30 < (across - down)[~fine].abs().min()


def test_the_predictor_sends_fine_stripes_to_full_size_and_coarse_ones_to_half(learned):
    seen, fine = learned
    full = controls.chosen(seen) == 0
    assert full[fine].float().mean() > 0.95 and full[~fine].float().mean() < 0.05


def test_the_choice_is_as_right_as_full_size_and_far_better_than_its_permutations(learned):
    seen, _ = learned
    dynamic, (at_full, at_half) = controls.score(seen, controls.chosen(seen)), controls.fixed(seen)
    assert dynamic.top1 > 0.97 and at_full.top1 - dynamic.top1 < 0.02 and at_half.top1 < 0.85
    assert dynamic.macs < 0.7 * at_full.macs
    blind, deviation = controls.permuted(seen)
    assert dynamic.top1 - blind > max(0.03, 3 * deviation)


def test_the_images_are_grouped_by_what_is_enough_and_by_where_they_are_sent(learned):
    seen, fine = learned
    enough, needed, small, large = known.groups(seen).values()
    assert list(known.groups(seen)) == ["16 px are enough", "32 px are needed", "sent to 16 px", "sent to 32 px"]
    assert torch.equal(enough, ~needed) and torch.equal(small, ~large) and not (needed & ~fine).any()
    assert large[fine].all() and small[~fine].all()
