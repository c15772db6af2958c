"""The order of the variants as records have it, and the record of the reference level."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dynlib import backbones
from dynlib.book import recipes, records
from dynlib.book.legacy import tables
from dynlib.book.legacy.wae_evidence import (
    EQUAL_COST,
    agreement,
    answer,
    at_equal_cost,
    claimed_errors,
    heads,
    how_made,
    in_short,
    pairs,
    ranked,
    reference,
    reference_config,
    scores,
    split,
    split_config,
    splits,
    told,
    verdict,
)
from dynlib.data import load
from dynlib.errors import InputError
from dynlib.papers import wae
from dynlib.papers.wae import VARIANTS
from dynlib.papers.wae.split import pca_reference

CLAIMED = {"c": 15.0, "a": 11.0, "b": 12.5}


def test_pairs_follow_the_claimed_order_and_need_both_sides():
    found = pairs(CLAIMED, {"a": {0: 0.9}, "c": {0: 0.5}, "unclaimed": {0: 0.3}, "b": {}}, 1000)
    assert [(pair.better, pair.worse, pair.claimed) for pair in found] == [("a", "c", 4.0)]
    assert found[0].gap == pytest.approx(0.4)
    assert found[0].error == pytest.approx((0.9 * 0.1 / 1000 + 0.5 * 0.5 / 1000) ** 0.5)
    assert pairs(CLAIMED, {"a": {0: 0.9}, "c": {1: 0.5}}, 1000) == []


def test_of_one_seed_a_gap_within_two_standard_errors_of_the_images_decides_nothing():
    found = pairs(CLAIMED, {"a": {0: 0.70}, "b": {0: 0.69}, "c": {0: 0.80}}, 1000)
    assert [pair.verdict for pair in found] == ["open", "opposes", "opposes"]
    assert [pair.verdict for pair in pairs(CLAIMED, {"a": {0: 0.70}, "b": {0: 0.60}}, 1000)] == ["agrees"]
    assert told(found[0]) == "+1.00 ± 2.06, n = 1"


def test_several_seeds_are_paired_and_judged_by_students_t():
    moved = pairs(CLAIMED, {"a": {0: 0.70, 1: 0.60}, "b": {0: 0.60, 1: 0.51}}, 1500)[0]  # 10 and 9 points: 19 errors
    assert (moved.seeds, moved.verdict, told(moved)) == (2, "agrees", "+9.50 ± 0.50, n = 2")
    apart = pairs(CLAIMED, {"a": {0: 0.70, 1: 0.70}, "b": {0: 0.60, 1: 0.66}}, 1500)[0]  # 10 and 4: 2.3 errors of 12.7
    assert apart.verdict == "open" and apart.error == pytest.approx(0.03)
    third = pairs(CLAIMED, {"a": {0: 0.70, 1: 0.60, 2: 0.1}, "b": {0: 0.60, 1: 0.51}}, 1500)
    assert third == [moved]


def test_seeds_that_agree_decide_nothing_that_the_test_images_cannot():
    found = pairs(CLAIMED, {"a": {0: 0.700, 1: 0.701}, "b": {0: 0.690, 1: 0.691}}, 1500)[0]
    assert found.verdict == "open"


def test_the_best_comes_first_and_who_has_no_record_not_at_all():
    assert ranked(CLAIMED, {"a": {0: 0.5, 1: 0.7}, "b": {}, "c": {0: 0.65}}) == ["c", "a"]


def test_the_agreement_in_words_counts_every_pair_and_what_rests_on_one_seed():
    found = pairs(CLAIMED, {"a": {0: 0.70}, "b": {0: 0.69}, "c": {0: 0.80}}, 1000)
    start = "of 3 pairs 0 decided over seeds as in the paper, 0 the other way round"
    one = "of one seed each, 0 lie as in the paper by more than the test images' error, 2 the other way round"
    assert agreement(found) == f"{start}; {one}; 1 open"
    several = pairs({"a": 1.0, "b": 2.0}, {"a": {0: 0.7, 1: 0.71}, "b": {0: 0.2, 1: 0.2}}, 1000)
    assert agreement(several) == "of 1 pairs 1 decided over seeds as in the paper, 0 the other way round, 0 open"
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


def test_the_record_of_an_auto_encoder_alone_is_found_by_lambda_and_seed(tmp_path):
    train, test = (load("scenes", split, n=8, size_px=32) for split in ("train", "val"))
    config = split_config("scenes", 32, 10, 512)
    figures = {"psnr": 30.0, "spectra": {"I_L": [1.0, 0.5]}}
    made = split(train, test, config, figures, [{"psnr": 30.0}], profile="public", seed=2, threads=1, wall_s=1.23)
    records.save(made, tmp_path)
    assert records.lookup("wae", "split", "public", split_config("scenes", 32, 10.0, 512), 2, tmp_path) == made
    assert records.lookup("wae", "split", "public", split_config("scenes", 32, 1, 512), 2, tmp_path) is None
    assert splits(split_config("scenes", 32, 10, 512), tmp_path) == [made]
    assert splits(split_config("scenes", 32, 1, 512), tmp_path) == []
    assert (made.dataset["train_images"], made.environment["threads"], made.wall_s) == (8, 1, 1.2)


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
        return [SimpleNamespace(seed=seed, metrics={"top1": of, "macs": macs}) for seed, of in enumerate(top1)]

    found = {"wae": runs(32_000_000, 0.60), "full": runs(39_000_000, 0.70, 0.72), "low": runs(31_000_000, 0.61)}
    text = verdict(found | {"wavelet": [], "downscaled": runs(30_000_000, 0.5)}, 1500)
    assert text.startswith(
        "WAE, at 32.0 M multiply-accumulates, is\n\n- more accurate than *downscaled* (30.0 M: +10.00 ± "
    )
    assert "\n- less accurate than *full* (39.0 M: −10.00 ± 1.73, n = 1)" in text
    assert text.endswith("\n- not told apart from *low* (31.0 M: −1.00 ± 1.78, n = 1)") and "wavelet" not in text
    assert scores(found | {"low": []}) == {"wae": {0: 0.60}, "full": {0: 0.70, 1: 0.72}}


def test_the_answer_has_order_agreement_and_verdict_or_says_that_there_is_no_record():
    def runs(*top1):
        metrics = [{"top1": value, "macs": 30_000_000} for value in top1]
        return [SimpleNamespace(seed=s, metrics=m, dataset={"test_images": 1500}) for s, m in enumerate(metrics)]

    found = {"a": runs(0.5), "wae": runs(0.7), "full": runs(0.9)}
    text = answer("net", {"wae": 11.0, "a": 12.0}, found)
    assert text.startswith("**net**, best first: wae, a; of 1 pairs 0 decided over seeds as in the paper")
    assert text.endswith(f" {verdict(found, 1500)}") and "*full*" in text
    rival = [SimpleNamespace(metrics={"top1": top1, "macs": 30_200_000, "size_px": 56}) for top1 in (0.6, 0.62)]
    told = answer("net", {"wae": 11.0, "a": 12.0}, found, rival)
    assert told == f"{text}\n\nThe network itself on pictures of 56 px: 61.00 % at 30.2 M, n = 2."
    part = answer("net", {"wae": 11.0, "a": 12.0}, found | {"wae": []})
    assert part == "**net**, best first: a; no pair of variants has records yet. No record of WAE yet."
    assert answer("net", {"wae": 11.0}, {"wae": [], "a": []}) == "**net**: no record yet."


def test_the_fusion_head_is_counted_where_it_beats_the_sum():
    runs = [SimpleNamespace(metrics=of) for of in ({"top1": 0.5, "top1_fused": 0.6}, {"top1": 0.5, "top1_fused": 0.5})]
    assert heads([*runs, SimpleNamespace(metrics={"top1": 0.9})]).startswith("In 1 of 2 records of two heads")


def test_what_is_missing_is_named_with_the_command_that_makes_it():
    notes = how_made({"net": {"wae": [], "full": [object()]}, "other": {"wae": [object()]}})
    assert "No record yet: net: wae." in notes[0] and "train wae --profile public" in notes[1]
    assert "nothing is missing" in how_made({"net": {"wae": [object()]}})[0]


def test_the_network_itself_is_asked_at_the_cost_of_wae():
    public = recipes.profile_recipe("01_wae", "public")
    found = at_equal_cost(public)
    assert {net: of.size_px for net, of in found.items()} == EQUAL_COST
    for net, of in found.items():
        network = backbones.build(of.arch, 10, width=of.width)
        theirs = wae.cost(wae.convert(network, wae.Config()), public.size_px).macs
        ours = wae.cost(wae.convert(network, wae.Config(variant="full")), of.size_px).macs
        assert ours == pytest.approx(theirs, rel=0.1), net


def test_a_network_is_told_in_short():
    found = {"net": {"wae": [SimpleNamespace(metrics={"top1": top1}) for top1 in (0.1, 0.12)], "full": []}, "none": {}}
    assert in_short("net", found) == "net: wae 11.00 % (n = 2)."
    assert in_short("none", found) == "none: no record yet."
