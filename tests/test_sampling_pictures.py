"""Pictures of where a sampled network looks, and the glance at speed: what is drawn is what was computed."""

import pytest
import torch

from dynlib.book.demos import sampling_pictures as pictures
from dynlib.book.legacy import sampling_speed as speed
from dynlib.book.records import Record
from dynlib.data import load
from dynlib.data.scenes import BACKGROUND
from dynlib.papers.sampling.masks import Sample
from dynlib.papers.sampling.released import nominal_size
from dynlib.paths import ROOT


@pytest.fixture(scope="module")
def scenes():
    return load("scenes_masks", "val", n=4, size_px=32)


def sample(side=16):
    probability = torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(0))
    return Sample((torch.rand(4, 1, side, side) < probability).float(), probability)


def test_a_threshold_lets_as_many_pass_as_were_drawn_and_those_of_highest_probability():
    drawn = sample()
    mask = pictures.cut(drawn.probability, drawn.mask)
    assert torch.equal(mask.sum((1, 2, 3)), drawn.mask.sum((1, 2, 3)))
    for kept, probability in zip(mask, drawn.probability, strict=True):
        assert probability[kept == 1].min() >= probability[kept == 0].max()


def test_a_dot_stands_where_a_position_is_computed_and_nowhere_else(scenes):
    drawn = sample()
    shown = pictures.portraits(scenes, drawn)
    assert {picture.shape for picture in shown.values()} == {(4, 128, 128, 3)}
    by_lot = shown["by lot: stochastic"]
    middles = by_lot[:, 4::8, 4::8]  # of the 8 x 8 pixels of a position
    assert torch.equal((middles == torch.tensor(pictures.DOT)).all(-1), drawn.mask[:, 0] == 1)
    corners = by_lot[:, ::8, ::8]
    assert not (corners == torch.tensor(pictures.DOT)).all(-1).any()


def test_the_network_of_the_figure_learns_and_yields_a_map_for_each_block(scenes, monkeypatch):
    monkeypatch.setattr(pictures, "SCHEDULE", pictures.train.Schedule(1, lr=0.05))
    network = pictures.learn(scenes, seed=0)
    seen = pictures.look(network, scenes)
    maps = pictures.maps(seen, 1)
    assert list(maps)[::7] == ["stage 1, block 1", "stage 4, block 2"] and len(maps) == 8
    assert maps["stage 1, block 1"].shape == (16, 16) and maps["stage 4, block 2"].shape == (8, 8)
    assert torch.equal(maps["stage 1, block 2"], seen[pictures.SHOWN].probability[1, 0]) and not network.training
    again = pictures.look(pictures.learn(scenes, seed=0), scenes)
    assert torch.equal(again[pictures.SHOWN].mask, seen[pictures.SHOWN].mask)


def test_filling_keeps_the_pixels_that_were_drawn(scenes):
    picture = scenes.images[0] / 255
    ways = pictures.filled(picture, 0.5, seed=1)
    kept = (ways["by lot; fill zeros"] == ways["picture"]).all(-1) & (ways["picture"] > 0).all(-1)
    assert 0.4 < kept.float().mean() < 0.6
    for way in ways.values():
        torch.testing.assert_close(way[kept], ways["picture"][kept])


def test_empty_windows_are_those_without_a_sample():
    corner = torch.zeros(1, 1, 8, 8)
    corner[..., 0, 0] = 1
    assert pictures.empty([corner, torch.ones(1, 1, 8, 8)]) == [48 / 63, 0.0]


def test_the_stages_read_the_maps_of_the_whole_image():
    height, width = nominal_size(1000)
    strides = {1: 4, 2: 4, 3: 8, 4: 16}
    assert {n: (height // stride, width // stride) for n, stride in strides.items()} == speed.READS
    assert all(size == (height, width) for arch, size, _ in speed.CASES.values() if arch == "resnet101")


def test_the_glance_times_both_sides_and_has_the_ratio_of_macs():
    (ratio, found), *_ = speed.here("resnet50_stage4", (6, 8), (0.25,), repeats=2).values()
    assert 2 < ratio < 4 and found.speedup > 0 and list(found.variants_ms) == ["frozen"]


def test_every_time_that_the_chapter_looks_for_is_a_row_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for arch, (height, width), density in speed.CASES.values():
        assert f'"sampling --arch {arch} --size {height}x{width} --batch 1 -p density={density}"' in makefile


def test_words_on_speed_go_by_the_quartiles():
    def run(low, high):
        metrics = {"speedup_iqr": [low, high], "speedup": high, "macs_ratio": 3.0}
        return Record("sampling", "latency", "paper", {}, "", {}, 0, metrics, [], {}, 0.0)

    timed = {f"stage {n}, density 0.25": of for n, of in {1: run(0.8, 0.9), 2: run(0.9, 1.1), 3: run(1.5, 2)}.items()}
    words = speed.words(timed | {"stage 1, density 0.5": run(3, 4), "whole, density 0.25": run(9, 9)})
    assert "faster in the whole network (9.00 times, 3.00 by operations), stage 3 (2.00" in words
    assert "slower in stage 1 (0.90" in words and "as fast in stage 2 (1.10" in words
    assert words.endswith("no record yet: stage 4.")


def test_probabilities_on_objects_and_behind_them_are_told_apart(scenes):
    of = scenes.masks[:, None] != BACKGROUND
    seen = Sample(of.float(), torch.where(of, 0.75, 0.25))
    assert of.any() and pictures.on_objects(scenes, seen) == pytest.approx((0.75, 0.25))
