"""The order of the variants as records have it, and the record of the reference level."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dynlib import records, tables
from dynlib.data import load
from dynlib.errors import InputError
from dynlib.papers.wae import VARIANTS
from dynlib.papers.wae_evidence import agreement, claimed_errors, pairs, ranked, reference, reference_config, verdict
from dynlib.papers.wae_split import pca_reference

CLAIMED = {"c": 15.0, "a": 11.0, "b": 12.5}


def test_pairs_follow_the_claimed_order_and_need_both_sides():
    found = pairs(CLAIMED, {"a": [0.9], "c": [0.5], "unclaimed": [0.3], "b": []}, 1000)
    assert [(pair.better, pair.worse, pair.claimed) for pair in found] == [("a", "c", 4.0)]
    assert found[0].gap == pytest.approx(0.4)
    assert found[0].error == pytest.approx((0.9 * 0.1 / 1000 + 0.5 * 0.5 / 1000) ** 0.5)


def test_a_gap_within_two_standard_errors_decides_nothing():
    found = pairs(CLAIMED, {"a": [0.70], "b": [0.69], "c": [0.80]}, 1000)
    assert [pair.verdict for pair in found] == ["undecided", "opposes", "opposes"]
    assert [pair.verdict for pair in pairs(CLAIMED, {"a": [0.70], "b": [0.60]}, 1000)] == ["agrees"]


def test_seeds_that_disagree_widen_the_error():
    near, far = (pairs(CLAIMED, {"a": seeds, "b": [0.6, 0.6]}, 1500)[0] for seeds in ([0.7, 0.7], [0.6, 0.8]))
    assert near.gap == pytest.approx(far.gap)
    assert far.error**2 - near.error**2 == pytest.approx(0.02 / 2)
    assert (near.verdict, far.verdict) == ("agrees", "undecided")


def test_the_best_comes_first_and_who_has_no_record_not_at_all():
    assert ranked(CLAIMED, {"a": [0.5, 0.7], "b": [], "c": [0.65]}) == ["c", "a"]


def test_the_agreement_in_words_counts_every_pair():
    found = pairs(CLAIMED, {"a": [0.70], "b": [0.69], "c": [0.80]}, 1000)
    assert "of 3 pairs 0 lie as in the paper and 2 the other way round; 1 are" in agreement(found)
    assert agreement([]) == "no pair of variants has records yet"


def test_the_record_of_a_level_is_found_again(tmp_path):
    train, test = (load("scenes", split, n=8, size_px=32) for split in ("train", "val"))
    made = reference(train, test, 32, "public")
    records.save(made, tmp_path)
    found = records.lookup("wae", "reference", "public", reference_config("scenes", 32), 0, tmp_path)
    assert found == made
    level = pca_reference(test.images.double() / 255, [6])[6]
    assert found.metrics["psnr_6_of_12"] == pytest.approx(level, abs=1e-3)
    assert found.metrics["psnr_6_of_12"] > found.metrics["psnr_3_of_12"]


def test_images_of_several_sizes_have_no_level():
    samples = load("scenes", "val", n=2)
    with pytest.raises(InputError, match="different sizes"):
        reference(samples, replace(samples, images=list(samples.images)), None, "public")


def test_every_variant_has_a_claimed_error_in_the_paper_s_order():
    claimed = claimed_errors(tables.claims("wae"))
    assert sorted(claimed, key=claimed.__getitem__) == [
        "full",
        "wae",
        "decomposition",
        "low",
        "wavelet",
        "downscaled",
        "approximation",
    ]
    assert set(claimed) == set(VARIANTS)


def test_the_verdict_sets_wae_beside_each_of_the_others_with_its_cost():
    def runs(macs, *top1):
        return [SimpleNamespace(metrics={"top1": value, "macs": macs}) for value in top1]

    found = {"wae": runs(32_000_000, 0.60), "full": runs(39_000_000, 0.70, 0.72), "low": runs(31_000_000, 0.64)}
    text = verdict(found | {"wavelet": []}, 1500)
    assert text.startswith("WAE, at 32.0 M multiply-accumulates, stands −4.00 ± ")
    assert "points from *low* (31.0 M), −11.00 ± " in text and "wavelet" not in text
    assert verdict({"wae": []}, 1500) == "no record of WAE yet"
