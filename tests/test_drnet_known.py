"""Stripes whose right resolution is known, and what half the side hides of them; chapter 5 expects it to be found."""

from dynlib.book.demos import drnet_known as known
from dynlib.papers.drnet.layers import resize


def test_fine_stripes_are_gone_at_half_the_side_and_coarse_ones_are_not():
    samples, fine = known.stripes(64, seed=3)
    assert samples.labels.bincount().tolist() == [32, 32] and fine.sum() == 32
    assert samples.labels[fine].bincount().tolist() == [16, 16]  # the kind does not give the class away
    half = resize(samples.images.float(), (16, 16), antialias=False).mean(1)
    across, down = half.mean(2).std(1), half.mean(1).std(1)  # contrast between rows, and between columns
    assert (across - down)[fine].abs().max() < 8 < 30 < (across - down)[~fine].abs().min()
